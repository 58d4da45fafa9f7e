package main

import (
	"bytes"
	"cmp"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

const (
	maxQty       = 10_000
	maxCents     = 100_000_000
	maxMinAmount = 1e12
	maxDepth     = 127
	topCustomers = 10
)

// In the order of their names; the tax is in 1/10000.
var regionNames = []string{"central", "east", "north", "northeast", "northwest", "south", "southwest", "west"}
var taxRates = []int64{800, 725, 500, 625, 650, 950, 1025, 1200}

type line struct {
	Qty      int64  `json:"qty"`
	Region   string `json:"region"`
	Customer string `json:"customer"`
	Price    string `json:"price"`
	Discount string `json:"discount"`
}

type request struct {
	Orders    []line         `json:"orders"`
	MinAmount jsontext.Value `json:"min_amount"`
}

type regionRow struct {
	Region string `json:"region"`
	Count  int    `json:"count"`
	Net    money  `json:"net"`
	Tax    money  `json:"tax"`
	Gross  money  `json:"gross"`
	Mean   money  `json:"mean"`
	P50    money  `json:"p50"`
	P95    money  `json:"p95"`
	Max    money  `json:"max"`
}

type customerRow struct {
	Customer string `json:"customer"`
	Gross    money  `json:"gross"`
}

type totals struct {
	Lines int   `json:"lines"`
	Count int   `json:"count"`
	Net   money `json:"net"`
	Tax   money `json:"tax"`
	Gross money `json:"gross"`
}

type answered struct {
	Regions      []regionRow   `json:"regions"`
	TopCustomers []customerRow `json:"top_customers"`
	Totals       totals        `json:"totals"`
}

// Cents, written as "12.34".
type money int64

func (m money) MarshalJSONTo(to *jsontext.Encoder) error {
	return to.WriteToken(jsontext.String(m.String()))
}

func (m money) String() string {
	var room [24]byte
	text := strconv.AppendInt(room[:0], int64(m)/100, 10)
	rest := byte(m % 100)
	return string(append(text, '.', '0'+rest/10, '0'+rest%10))
}

// The body does not keep the rules; what is wrong with it, `strict` says.
var errRules = errors.New("against the rules")

// Of a member that comes twice, the last one counts.
var options = json.JoinOptions(jsontext.AllowDuplicateNames(true))

func summarize(body []byte) (*answered, *fault) {
	if asked, ok := decode(body); ok && shallow(body, len(asked.Orders)) {
		if minimum, ok := minCents(asked.MinAmount); ok {
			if found, err := sum(asked.Orders, minimum); err == nil {
				return found, nil
			}
		}
	}
	return strict(body)
}

// Whether a well-formed body nests no deeper than the rules allow. The brackets of the lines nest three deep; others are
// counted, and looked at one by one only when there are many.
func shallow(body []byte, lines int) bool {
	others := bytes.Count(body, []byte("{")) + bytes.Count(body, []byte("[")) - lines - 2
	return others <= maxDepth-3 || depth(body) <= maxDepth
}

func minCents(text jsontext.Value) (int64, bool) {
	if text == nil {
		return 0, true
	}
	if text.Kind() != '0' {
		return 0, false
	}
	value, err := strconv.ParseFloat(string(text), 64)
	if err != nil || value < 0 || value > maxMinAmount {
		return 0, false
	}
	cents := math.RoundToEven(value * 100)
	return int64(cents), cents/100 == value
}

// A decimal string as an integer of 10^-places, and whether it is one below `limit`.
func scaled(text string, places int, limit int64) (int64, bool) {
	whole, fraction, point := strings.Cut(text, ".")
	if whole == "" || len(fraction) > places || (point && fraction == "") {
		return 0, false
	}
	var number int64
	for _, digits := range [2]string{whole, fraction} {
		for i := 0; i < len(digits); i++ {
			digit := digits[i] - '0'
			if digit > 9 {
				return 0, false
			}
			if number < limit { // beyond it only the characters matter
				number = number*10 + int64(digit)
			}
		}
	}
	for range places - len(fraction) {
		number *= 10
	}
	return number, number < limit
}

// The quotient, rounded half-even.
func divide(number, by int64) int64 {
	quotient, rest := number/by, number%by
	if twice := 2 * rest; twice > by || (twice == by && quotient&1 == 1) {
		quotient++
	}
	return quotient
}

func factor(qty int64) int64 {
	switch {
	case qty >= 50:
		return 88
	case qty >= 20:
		return 93
	case qty >= 10:
		return 97
	}
	return 100
}

type kept struct {
	net, tax int64
	gross    []int64
}

func sum(orders []line, minimum int64) (*answered, error) {
	var regions [8]kept
	customers := make(map[string]int64, min(len(orders), 1024))
	for i := range orders {
		one := &orders[i]
		cents, isPrice := scaled(one.Price, 2, maxCents)
		discount, isDiscount := scaled(one.Discount, 4, 10_000)
		number, isRegion := slices.BinarySearch(regionNames, one.Region)
		if one.Qty < 1 || one.Qty > maxQty || !isRegion || one.Customer == "" || !isPrice || cents == 0 || !isDiscount {
			return nil, errRules
		}
		net := divide(cents*one.Qty*(10_000-discount)*factor(one.Qty), 1_000_000)
		if net < minimum {
			continue
		}
		tax := divide(net*taxRates[number], 10_000)
		region := &regions[number]
		region.net += net
		region.tax += tax
		region.gross = append(region.gross, net+tax)
		customers[one.Customer] += net + tax
	}

	found := &answered{Regions: make([]regionRow, 0, len(regions)), TopCustomers: best(customers)}
	found.Totals.Lines = len(orders)
	for number := range regions {
		region := &regions[number]
		count := len(region.gross)
		if count == 0 {
			continue
		}
		slices.Sort(region.gross)
		gross := region.net + region.tax
		found.Regions = append(found.Regions, regionRow{
			Region: regionNames[number], Count: count,
			Net: money(region.net), Tax: money(region.tax), Gross: money(gross), Mean: money(divide(gross, int64(count))),
			P50: money(region.gross[count/2]), P95: money(region.gross[count*95/100]), Max: money(region.gross[count-1]),
		})
		found.Totals.Count += count
		found.Totals.Net += money(region.net)
		found.Totals.Tax += money(region.tax)
		found.Totals.Gross += money(gross)
	}
	return found, nil
}

func best(customers map[string]int64) []customerRow {
	names := slices.SortedFunc(maps.Keys(customers), func(a, b string) int {
		return cmp.Or(cmp.Compare(customers[b], customers[a]), strings.Compare(a, b))
	})
	rows := make([]customerRow, 0, topCustomers)
	for _, name := range names[:min(len(names), topCustomers)] {
		rows = append(rows, customerRow{name, money(customers[name])})
	}
	return rows
}
