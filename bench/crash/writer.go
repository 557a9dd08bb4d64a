package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"

	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/gateway"
	"github.com/caddy-apikeys/caddy-apikeys/bench/internal/wire"
)

// errWrong says that the gateway answered, and not as it should.
var errWrong = errors.New("wrong answer")

// writer creates keys and revokes about half of them, of this life of the gateway
// and of earlier ones.
type writer struct {
	book   *book
	random *rand.Rand
	mine   []*entry // no revocation was sent
}

// run works until the connection breaks.
func (w *writer) run(address, root string) error {
	conn, err := wire.Dial(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		if err := w.create(conn, root); err != nil {
			return err
		}
		if w.random.IntN(2) == 0 {
			if err := w.revoke(conn, root); err != nil {
				return err
			}
		}
	}
}

func (w *writer) create(conn *wire.Conn, root string) error {
	status, answer, err := conn.Do(http.MethodPost, "/v1/api-keys", root, `{"name":"crash"}`)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%w: a create was answered %d", errWrong, status)
	}
	made, err := gateway.ParseIssued(answer)
	if err != nil {
		return fmt.Errorf("%w: %v", errWrong, err)
	}
	k := &entry{id: made.ID, token: made.Token}
	w.mine = append(w.mine, k)
	return w.book.created(k)
}

func (w *writer) revoke(conn *wire.Conn, root string) error {
	at := w.random.IntN(len(w.mine))
	k := w.mine[at]
	w.mine[at] = w.mine[len(w.mine)-1]
	w.mine = w.mine[:len(w.mine)-1]

	k.state = unsure // while no answer has come, either is right
	status, _, err := conn.Do(http.MethodDelete, "/v1/api-keys/"+k.id, root, "")
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%w: a revoke was answered %d", errWrong, status)
	}
	return w.book.revoked(k)
}
