// Package wire is a client for one HTTP/1.1 connection that stays open. It costs
// a fraction of net/http's client, and whoever uses it knows when a request
// begins and when its answer has come.
package wire

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// timeout bounds each request.
const timeout = 30 * time.Second

// Conn is one connection. It serves one request at a time.
type Conn struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	host string
}

// Dial connects to an address, host and port.
func Dial(address string) (*Conn, error) {
	conn, err := net.DialTimeout("tcp", address, timeout)
	if err != nil {
		return nil, err
	}
	return &Conn{conn: conn, in: bufio.NewReaderSize(conn, 4<<10), host: address}, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// Do sends a request with a bearer token, and a JSON body if there is one, and
// returns the status and the body of the answer. After an error the connection
// is of no more use.
func (c *Conn) Do(method, path, token, body string) (status int, answer []byte, err error) {
	c.out = fmt.Appendf(c.out[:0], "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAuthorization: Bearer %s\r\n", method, path, c.host, token)
	if body != "" {
		c.out = fmt.Appendf(c.out, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	c.out = append(append(c.out, "\r\n"...), body...)
	if err := c.conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return 0, nil, err
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, nil, err
	}
	response, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}
