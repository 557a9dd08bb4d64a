package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/caddy-apikeys/caddy-apikeys/apikey"
)

const (
	// batch is how many keys go into one write.
	batch = 2000
	// workers make keys while others wait for the disk. More of them would
	// only hand in keys out of order.
	workers = 2
	// keysEach is about how many keys an organization has.
	keysEach = 10_000
)

// issueAll issues keys and calls made, on one goroutine at a time, for each batch
// that is in the store.
func issueAll(ctx context.Context, ring *apikey.Keyring, keys int, made func([]apikey.Issued)) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	callers, err := principals(ctx, ring, min(keys, (keys+keysEach-1)/keysEach))
	if err != nil {
		return err
	}
	made(callers.issued)

	var mu sync.Mutex
	next := len(callers.all)
	take := func() (first, n int) {
		mu.Lock()
		defer mu.Unlock()
		first, n = next, min(batch, keys-next)
		next += n
		return first, n
	}
	var working sync.WaitGroup
	for range workers {
		working.Go(func() {
			for first, n := take(); n > 0 && ctx.Err() == nil; first, n = take() {
				issued, err := ring.IssueMany(ctx, callers.all[first/batch%len(callers.all)], wishes(first, n))
				if err != nil {
					stop(err)
					return
				}
				mu.Lock()
				made(issued)
				mu.Unlock()
			}
		})
	}
	working.Wait()
	return context.Cause(ctx)
}

// callers are users that make the other keys, one of each organization.
type callers struct {
	issued []apikey.Issued
	all    []apikey.Principal
}

func principals(ctx context.Context, ring *apikey.Keyring, organizations int) (c callers, err error) {
	for i := range organizations {
		organization, user := fmt.Sprintf("org-%05d", i), fmt.Sprintf("user-%05d", i)
		first, err := ring.Issue(ctx, apikey.Operator(organization),
			apikey.Issue{Name: "first of this org", UserID: user, Scope: apikey.ScopeReadWrite})
		if err != nil {
			return c, err
		}
		c.issued = append(c.issued, first)
		c.all = append(c.all, apikey.Principal{
			OrganizationID: organization, UserID: user, KeyID: first.Key.ID, Scope: apikey.ScopeReadWrite,
		})
	}
	if len(c.all) == 0 {
		return c, errors.New("no key asked for")
	}
	return c, nil
}

// wishes says what n keys are to be.
func wishes(first, n int) []apikey.Issue {
	what := make([]apikey.Issue, n)
	for i := range what {
		what[i] = apikey.Issue{
			Name:             fmt.Sprintf("key number %05d", (first+i)%100_000), // 16 characters
			Scope:            apikey.ScopeReadWrite,
			ServiceAccountID: fmt.Sprintf("service-%05d", (first+i)/10%100_000),
		}
	}
	return what
}
