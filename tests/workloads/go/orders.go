// A web service that asks a gRPC service and PostgreSQL, and says in each question for which request it asks.
//
//	GET /orders/{n}    rpc orders.Orders/Order{n}; a query AS order_{n}; in a goroutine of its own a query AS spawned_{n}
//
// `orders GRPC_ADDRESS POSTGRES_ADDRESS`: prints the port that it listens on. gRPC goes over net/http's own HTTP/2, without
// TLS, on one connection; the traceparent that comes with a request goes on with the rpc.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

// One connection of the simple query protocol, which reads and writes on the goroutine that asks.
type database struct {
	connection net.Conn
	reader     *bufio.Reader
}

func open(address string) (*database, error) {
	connection, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	d := &database{connection, bufio.NewReader(connection)}
	parameters := "user\x00postgres\x00database\x00postgres\x00\x00"
	start := binary.BigEndian.AppendUint32(nil, uint32(8+len(parameters)))
	start = binary.BigEndian.AppendUint32(start, 3<<16)
	return d, d.ask(append(start, parameters...))
}

func (d *database) query(text string) error {
	message := binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(text)+1))
	return d.ask(append(append(message, text...), 0))
}

// Sends, and reads until the server is ready for the next query.
func (d *database) ask(message []byte) error {
	if _, err := d.connection.Write(message); err != nil {
		return err
	}
	for {
		var head [5]byte
		if _, err := io.ReadFull(d.reader, head[:]); err != nil {
			return err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(d.reader, body); err != nil {
			return err
		}
		switch head[0] {
		case 'E':
			return fmt.Errorf("%q", body)
		case 'Z':
			return nil
		}
	}
}

type service struct {
	grpc   string
	client *http.Client
	idle   chan *database
}

func (s *service) query(name, number string) error {
	d := <-s.idle
	defer func() { s.idle <- d }()
	return d.query(fmt.Sprintf("SELECT pg_sleep(0.002), 1 AS %s_%s", name, number))
}

// Calls a method that takes and gives an empty message.
func (s *service) call(number, traceparent string) error {
	url := fmt.Sprintf("http://%s/orders.Orders/Order%s", s.grpc, number)
	request, err := http.NewRequest("POST", url, bytes.NewReader(make([]byte, 5)))
	if err != nil {
		return err
	}
	request.Header.Set("content-type", "application/grpc")
	request.Header.Set("te", "trailers")
	if traceparent != "" {
		request.Header.Set("traceparent", traceparent)
	}
	answer, err := s.client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if status := answer.Trailer.Get("grpc-status"); status != "0" {
		return fmt.Errorf("gRPC status %q", status)
	}
	return nil
}

func (s *service) order(w http.ResponseWriter, r *http.Request) {
	number := r.PathValue("number")
	spawned := make(chan error, 1)
	go func() { spawned <- s.query("spawned", number) }()
	err := s.call(number, r.Header.Get("traceparent"))
	if err == nil {
		err = s.query("order", number)
	}
	if other := <-spawned; err == nil {
		err = other
	}
	if err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	fmt.Fprintln(w, number)
}

func run(grpc, postgres string) error {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	s := &service{grpc, &http.Client{Transport: &http.Transport{Protocols: protocols}}, make(chan *database, 20)}
	for range cap(s.idle) {
		d, err := open(postgres)
		if err != nil {
			return err
		}
		s.idle <- d
	}
	http.HandleFunc("GET /orders/{number}", s.order)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	return http.Serve(listener, nil)
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: orders GRPC_ADDRESS POSTGRES_ADDRESS")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}
