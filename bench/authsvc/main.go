// Command authsvc is the small service that a gateway without keys of its own
// asks about each request (forward_auth, auth_request): it answers 200 and names
// the key when the bearer token is one of a file, and 401 otherwise.
//
//	authsvc 127.0.0.1:9001 tokens.txt
package main

import (
	"bufio"
	"crypto/sha256"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: authsvc ADDRESS FILE")
	}
	names, err := load(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		name, ok := names[sha256.Sum256([]byte(token))]
		if !ok {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-Key-Id", name)
	})))
}

// load reads a token from each line of a file. It keeps their digests, as a
// service that guards keys does.
func load(path string) (map[[sha256.Size]byte]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names := make(map[[sha256.Size]byte]string)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		token := lines.Text()
		names[sha256.Sum256(lines.Bytes())] = token[:min(len(token), 25)] // the public start
	}
	return names, lines.Err()
}
