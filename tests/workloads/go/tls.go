// An HTTPS server and a client of it in one program: N requests over C connections, each of another path.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

// certificate makes one for the loopback address.
func certificate() tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der := must(x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func main() {
	version, requests, connections := os.Args[1], must(strconv.Atoi(os.Args[2])), must(strconv.Atoi(os.Args[3]))
	listener := must(net.Listen("tcp", "127.0.0.1:0"))
	server := http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate()}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/missing") {
				w.WriteHeader(404)
			}
			fmt.Fprintln(w, strings.Repeat("answer ", 20))
		}),
	}
	if version == "1" {
		server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
	}
	go server.ServeTLS(listener, "", "")
	fmt.Println("ready")
	var clients sync.WaitGroup
	for client := range connections {
		transport := &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			ForceAttemptHTTP2: version == "2",
		}
		clients.Add(1)
		go func() {
			defer clients.Done()
			for request := client; request < requests; request += connections {
				path := "item"
				if request%10 == 9 {
					path = "missing"
				}
				url := fmt.Sprintf("https://%s/%s/%d", listener.Addr(), path, request)
				response := must((&http.Client{Transport: transport}).Get(url))
				must(io.Copy(io.Discard, response.Body))
				response.Body.Close()
			}
			transport.CloseIdleConnections()
		}()
	}
	clients.Wait()
	time.Sleep(100 * time.Millisecond)
}
