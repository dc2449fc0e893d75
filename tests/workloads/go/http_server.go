// A server of HTTP/1.1 and of HTTP/2 without TLS: / and /items/NUMBER answer 200, everything else 404. `http_server PORT`
package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	page := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "a small page") }
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", page)
	mux.HandleFunc("/items/{number}", page)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: mux, Protocols: protocols}
	fmt.Fprintln(os.Stderr, server.ListenAndServe())
}
