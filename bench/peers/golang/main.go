// The demo's order summary as a Go service: net/http, money in whole cents.
//
// The rules are those of django_app/orders/rules.py. `summary.go` holds the way of a good request, which `decode_*.go` read by
// the decoder that the build chooses; `strict.go` finds what is wrong with a bad one.
package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json/v2"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
)

// As in the Django project's settings.
const bodyLimit = 16 << 20

// The bodies of requests that have ended, for the next ones: a body is 257 KB, and the collector need not see it.
var bodies = sync.Pool{New: func() any { return new([]byte) }}

func readBody(w http.ResponseWriter, r *http.Request) (*[]byte, error) {
	room := bodies.Get().(*[]byte)
	from := http.MaxBytesReader(w, r.Body, bodyLimit)
	if r.ContentLength < 0 || r.ContentLength > bodyLimit {
		read, err := io.ReadAll(from)
		*room = read
		return room, err
	}
	if int64(cap(*room)) < r.ContentLength {
		*room = make([]byte, r.ContentLength)
	}
	*room = (*room)[:r.ContentLength]
	_, err := io.ReadFull(from, *room)
	return room, err
}

func answer(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body)
}

func summary(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(w, r)
	// When this is called the answer is written: what points into the body is not read again.
	defer bodies.Put(body)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) || r.ContentLength > bodyLimit {
		answer(w, http.StatusRequestEntityTooLarge, &fault{Message: "the request body is too large"})
		return
	}
	if err != nil {
		answer(w, http.StatusBadRequest, &fault{Message: "this request cannot be read"})
		return
	}
	found, wrong := summarize(*body)
	if wrong != nil {
		answer(w, http.StatusBadRequest, wrong)
		return
	}
	answer(w, http.StatusOK, found)
}

// Lets a request through only with the token, as the Django project's middleware does.
func authorized(token string, next http.HandlerFunc) http.HandlerFunc {
	known := sha256.Sum256([]byte(token))
	return func(w http.ResponseWriter, r *http.Request) {
		scheme, given, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		hashed := sha256.Sum256([]byte(given))
		if !strings.EqualFold(scheme, "bearer") || subtle.ConstantTimeCompare(hashed[:], known[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			answer(w, http.StatusUnauthorized, &fault{Message: "this server needs an API token; hint: send Authorization: Bearer TOKEN"})
			return
		}
		next(w, r)
	}
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8000", "where to listen")
	flag.Parse()
	token := os.Getenv("DEMO_API_TOKEN")
	http.HandleFunc("POST /go/", authorized(token, summary))
	http.HandleFunc("GET /health/", authorized(token, func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "ok"})
	}))
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		listener.Close()
	}()
	if err := http.Serve(listener, nil); !errors.Is(err, net.ErrClosed) {
		log.Fatal(err)
	}
}
