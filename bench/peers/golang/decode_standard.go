//go:build !easyjson

package main

import "encoding/json/v2"

// The request as the standard library reads it; false where `strict` is to say what is wrong with it.
func decode(body []byte) (request, bool) {
	var asked request
	err := json.Unmarshal(body, &asked, options)
	return asked, err == nil && asked.Orders != nil
}
