package apikey

import (
	"context"
	"maps"
	"net/netip"
	"strings"
	"time"
)

// A flush has at hand from where a key was used before and now. When the two differ
// much, the key may be in other hands, and the observer is told. So may be half of
// all keys, when a network changes: what is told is bounded, and the rest counted.

const (
	// moveInterval is how long nothing more is told of a key.
	moveInterval = time.Hour
	// maxMoves is of how many keys something is told in that time.
	maxMoves = 1000
)

// ClientChange tells that a key was used from another network, or with another
// program, than when its use was last recorded.
type ClientChange struct {
	KeyID          ID
	OrganizationID string
	// Network says that the address is in another network: another /24 of IPv4,
	// another /48 of IPv6, or the other protocol.
	Network bool
	// UserAgent says that the user agent names another product: what comes
	// before its first slash or space. Another version is the same product.
	UserAgent bool
	// Before is the use that was recorded last, without its count, and After the
	// new one.
	Before, After Usage
}

// moves are the changes of clients that flushes find. They belong to the flush that
// is under way, but for the queue.
type moves struct {
	queue    chan *ClientChange // never waited for by a flush
	told     map[ID]int64       // when a key was told of, in Unix milliseconds
	untold   int
	reported int64 // when the untold were
}

func newMoves() moves {
	return moves{queue: make(chan *ClientChange, maxMoves), told: make(map[ID]int64)}
}

// untoldChange stands for a change that is only counted.
var untoldChange = new(ClientChange)

// find compares two uses of a key. It is nil when they do not differ much, or when
// there was none before: only what is known can be another.
func (m *moves) find(id ID, before, after *Usage, now int64) *ClientChange {
	network := before.LastUsedIP.IsValid() && after.LastUsedIP.IsValid() && networkOf(before.LastUsedIP) != networkOf(after.LastUsedIP)
	userAgent := before.LastUsedUserAgent != "" && after.LastUsedUserAgent != "" && productOf(before.LastUsedUserAgent) != productOf(after.LastUsedUserAgent)
	switch {
	case !network && !userAgent:
		return nil
	case !m.mayTell(id, now):
		return untoldChange
	}
	c := &ClientChange{KeyID: id, Network: network, UserAgent: userAgent, Before: *before, After: *after}
	c.Before.Count, c.After.Count = 0, 0
	c.Before.LastUsedUserAgent = strings.Clone(before.LastUsedUserAgent) // from the store's memory
	c.After.LastUsedUserAgent = strings.Clone(after.LastUsedUserAgent)
	return c
}

func networkOf(address netip.Addr) netip.Prefix {
	bits := 48
	if address.Is4() {
		bits = 24
	}
	network, _ := address.Prefix(bits)
	return network
}

// productOf returns the name of the first product of a user agent (RFC 9110,
// section 10.1.5).
func productOf(userAgent string) string {
	if end := strings.IndexAny(userAgent, "/ "); end >= 0 {
		return userAgent[:end]
	}
	return userAgent
}

// mayTell reports whether a change of a key is within the bounds.
func (m *moves) mayTell(id ID, now int64) bool {
	at, told := m.told[id]
	return !told && len(m.told) < maxMoves || told && m.over(at, now)
}

// over reports whether the interval is over, or the clock was ahead when it began.
func (m *moves) over(since, now int64) bool {
	return now < since || now-since >= moveInterval.Milliseconds()
}

// keep hands a change on that is in the store now.
func (m *moves) keep(c *ClientChange, now int64) {
	if c == nil {
		return
	}
	if c != untoldChange && m.mayTell(c.KeyID, now) {
		select {
		case m.queue <- c:
			m.told[c.KeyID] = now
			return
		default:
		}
	}
	m.untold++
}

// turn begins a flush: keys that were told of long ago may be told of again. It
// returns how many changes were not told, at most once in the interval.
func (m *moves) turn(now int64) (untold int) {
	maps.DeleteFunc(m.told, func(_ ID, at int64) bool { return m.over(at, now) })
	if m.untold > 0 && m.over(m.reported, now) {
		untold, m.untold, m.reported = m.untold, 0, now
	}
	return untold
}

// tellUntil tells of changes as flushes find them. Whoever is told may take long;
// no flush waits for it.
func (k *Keyring) tellUntil(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-k.recorder.moves.queue:
			k.tell(ctx, c)
		}
	}
}

// tellRest tells of what the last flush has found.
func (k *Keyring) tellRest(ctx context.Context) {
	for len(k.recorder.moves.queue) > 0 && ctx.Err() == nil {
		k.tell(ctx, <-k.recorder.moves.queue)
	}
}

// tell adds whose the key is, where that can be found out.
func (k *Keyring) tell(ctx context.Context, c *ClientChange) {
	_ = k.view(ctx, "get", func(tx Reader) error {
		r, err := getRecord(tx, c.KeyID)
		if r != nil {
			c.OrganizationID = r.OrganizationID
		}
		return err
	})
	k.observer.ClientChanged(ctx, *c)
}
