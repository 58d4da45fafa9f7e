package main

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"strconv"
	"strings"
)

// What is wrong with a request: the body of a 400.
type fault struct {
	Message string  `json:"error"`
	Index   *int    `json:"index"`
	Field   *string `json:"field"`
}

func (f fault) in(index int, field string) *fault {
	f.Index = &index
	if field != "" {
		f.Field = &field
	}
	return &f
}

func (f fault) of(field string) *fault {
	f.Field = &field
	return &f
}

var (
	notJSON      = fault{Message: "the body is not valid JSON"}
	notAnObject  = fault{Message: "the body must be an object"}
	noOrders     = fault{Message: "orders must be a list"}
	badMinAmount = fault{Message: "min_amount must be a number from 0 to 1000000000000 with at most 2 decimals"}
	notALine     = fault{Message: "a line must be an object"}
)

// The fields of a line, in the order in which they are checked.
var fields = []struct {
	name, message string
	fits          func(jsontext.Value, *line) bool
}{
	{"qty", "qty must be an integer from 1 to 10000", func(value jsontext.Value, to *line) bool {
		// An integer is a number without fraction and exponent.
		number, err := strconv.ParseInt(string(value), 10, 64)
		to.Qty = number
		return err == nil && number >= 1 && number <= maxQty
	}},
	{"region", "region must be one of " + strings.Join(regionNames, ", "), func(value jsontext.Value, to *line) bool {
		to.Region = text(value)
		for _, name := range regionNames {
			if name == to.Region {
				return true
			}
		}
		return false
	}},
	{"customer", "customer must be a non-empty string", func(value jsontext.Value, to *line) bool {
		to.Customer = text(value)
		return to.Customer != ""
	}},
	{"price", "price must be a decimal string over 0 and under 1000000 with at most 2 decimals", func(value jsontext.Value, to *line) bool {
		to.Price = text(value)
		cents, ok := scaled(to.Price, 2, maxCents)
		return ok && cents > 0
	}},
	{"discount", "discount must be a decimal string from 0 to under 1 with at most 4 decimals", func(value jsontext.Value, to *line) bool {
		to.Discount = text(value)
		_, ok := scaled(to.Discount, 4, 10_000)
		return ok
	}},
}

// A JSON string's text; of anything else nothing, which no field takes.
func text(value jsontext.Value) string {
	if value.Kind() != '"' {
		return ""
	}
	var found string
	if json.Unmarshal(value, &found) != nil {
		return ""
	}
	return found
}

// The same as `summarize`, member by member: it finds the first fault, or the answer where there is none after all.
func strict(body []byte) (*answered, *fault) {
	if !jsontext.Value(body).IsValid(jsontext.AllowDuplicateNames(true)) || depth(body) > maxDepth {
		return nil, &notJSON
	}
	var members map[string]jsontext.Value
	if jsontext.Value(body).Kind() != '{' || json.Unmarshal(body, &members, options) != nil {
		return nil, &notAnObject
	}
	var values []jsontext.Value
	if members["orders"].Kind() != '[' || json.Unmarshal(members["orders"], &values, options) != nil {
		return nil, noOrders.of("orders")
	}
	minimum, ok := minCents(members["min_amount"])
	if !ok {
		return nil, badMinAmount.of("min_amount")
	}
	lines := make([]line, len(values))
	for index, value := range values {
		var found map[string]jsontext.Value
		if value.Kind() != '{' || json.Unmarshal(value, &found, options) != nil {
			return nil, notALine.in(index, "")
		}
		for _, field := range fields {
			if !field.fits(found[field.name], &lines[index]) {
				return nil, fault{Message: field.message}.in(index, field.name)
			}
		}
	}
	found, err := sum(lines, minimum)
	if err != nil {
		return nil, &notJSON // not reached: every line was checked
	}
	return found, nil
}

// How deep the brackets of a well-formed body nest.
func depth(body []byte) int {
	deep, deepest, quoted := 0, 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			deep++
			deepest = max(deepest, deep)
		case c == '}' || c == ']':
			deep--
		}
	}
	return deepest
}
