package main

import (
	"os"
	"testing"
)

// Which decoder is the faster, on the body that the peers are sent (`python -m bench data` writes it):
//
//	go test -bench . ; go test -modfile go.easyjson.mod -tags easyjson -bench .
func BenchmarkDecode(b *testing.B) {
	body, err := os.ReadFile("../../data/orders-2000.json")
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if asked, ok := decode(body); !ok || len(asked.Orders) != 2000 {
			b.Fatal("the body is not understood")
		}
	}
}
