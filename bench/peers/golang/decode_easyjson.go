//go:build easyjson

package main

import (
	"encoding/json/jsontext"

	"github.com/mailru/easyjson/jlexer"
)

// The request as easyjson's lexer reads it, in the code that its generator would write; false where `strict` is to say what is
// wrong with it. The lexer takes some bodies that are no JSON (a comma too much, numbers that it skips), so those are looked
// for first. Strings point into the body, which lives until the request is answered.
func decode(body []byte) (request, bool) {
	var asked request
	if !jsontext.Value(body).IsValid(jsontext.AllowDuplicateNames(true)) {
		return asked, false
	}
	in := jlexer.Lexer{Data: body}
	in.Delim('{')
	for !in.IsDelim('}') {
		name := in.UnsafeFieldName(false)
		in.WantColon()
		switch name {
		case "orders":
			asked.Orders = lines(&in, asked.Orders[:0])
		case "min_amount":
			asked.MinAmount = in.Raw()
		default:
			in.SkipRecursive()
		}
		in.WantComma()
	}
	in.Delim('}')
	in.Consumed()
	return asked, in.Error() == nil && asked.Orders != nil
}

// A line's usual share of a body, so that the lines seldom have to move.
const lineBytes = 120

func lines(in *jlexer.Lexer, found []line) []line {
	if found == nil {
		found = make([]line, 0, len(in.Data)/lineBytes+1)
	}
	in.Delim('[')
	for !in.IsDelim(']') {
		found = append(found, line{})
		one := &found[len(found)-1]
		in.Delim('{')
		for !in.IsDelim('}') {
			name := in.UnsafeFieldName(false)
			in.WantColon()
			switch name {
			case "qty":
				one.Qty = in.Int64()
			case "region":
				one.Region = in.UnsafeString()
			case "customer":
				one.Customer = in.UnsafeString()
			case "price":
				one.Price = in.UnsafeString()
			case "discount":
				one.Discount = in.UnsafeString()
			default:
				in.SkipRecursive()
			}
			in.WantComma()
		}
		in.Delim('}')
		in.WantComma()
	}
	in.Delim(']')
	return found
}
