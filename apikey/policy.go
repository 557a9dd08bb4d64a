package apikey

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Policy is what one configuration demands of keys. Several policies can be in
// force over the same keys, as while a server reloads. It rules changes from
// then on; keys that exist stay as they are.
type Policy struct {
	// Prefix starts the tokens of new keys. Default: DefaultPrefix.
	Prefix string
	// RetiredPrefixes start tokens that were made under an earlier
	// configuration and are still accepted.
	RetiredPrefixes []string
	// MaxTTL is how long a key may live from now, whenever its end is set.
	// Zero: for ever.
	MaxTTL time.Duration
	// DefaultTTL is how long a new key lives when nobody says so. Default:
	// MaxTTL.
	DefaultTTL time.Duration
	// MaxKeys bounds the active keys of an organization. Zero: any number.
	MaxKeys int
	// Peppers are secrets that go into the digests of keys. The first one is
	// used for new digests, the others are accepted. Keys that were issued
	// before there was a pepper stay good, and get it at their next use.
	Peppers [][]byte
	// ForeignSecrets are the secrets of those who made the digests of
	// imported keys with hmac-sha256, by name.
	ForeignSecrets map[string][]byte
	// Usage is what is recorded of the use of keys. Default: UsageFull.
	Usage UsageMode
	// Retention is how long the record of a key stays after the key was
	// revoked or has expired. Zero: for ever. See Keyring.Enforce.
	Retention time.Duration
}

// UsageMode says what is recorded when a key is used.
type UsageMode uint8

const (
	// UsageFull records time, count, address and user agent.
	UsageFull UsageMode = iota
	// UsageTime records time and count. Addresses and user agents that are
	// in the store go at the next use.
	UsageTime
	// UsageOff records nothing.
	UsageOff
)

// ParseUsageMode reads a mode as the configuration writes it.
func ParseUsageMode(text string) (UsageMode, bool) {
	switch text {
	case "full":
		return UsageFull, true
	case "time":
		return UsageTime, true
	case "off":
		return UsageOff, true
	}
	return UsageFull, false
}

// Check says what is wrong with a policy, if anything.
func (p *Policy) Check() error {
	prefixes := p.RetiredPrefixes
	if p.Prefix != "" {
		prefixes = append([]string{p.Prefix}, prefixes...)
	}
	for _, prefix := range prefixes {
		if err := CheckPrefix(prefix); err != nil {
			return err
		}
	}
	if p.MaxTTL != 0 && p.DefaultTTL > p.MaxTTL {
		return fmt.Errorf("the default life of a key, %s, is longer than the longest, %s", days(p.DefaultTTL), days(p.MaxTTL))
	}
	for _, secret := range p.Peppers {
		if len(secret) < MinPepperLength {
			return fmt.Errorf("a pepper has at least %d bytes, this one has %d", MinPepperLength, len(secret))
		}
	}
	return nil
}

// With returns a Keyring of the same keys under another policy, which reports
// to another observer. Only the one that Open returned needs to be closed.
func (k *Keyring) With(policy Policy, observer Observer) (*Keyring, error) {
	if err := policy.Check(); err != nil {
		return nil, err
	}
	if policy.Prefix == "" {
		policy.Prefix = DefaultPrefix
	}
	if policy.DefaultTTL == 0 {
		policy.DefaultTTL = policy.MaxTTL
	}
	if observer == nil {
		observer = unobserved{}
	}
	with := &Keyring{core: k.core, policy: policy, observer: observer}
	for _, prefix := range append([]string{policy.Prefix}, policy.RetiredPrefixes...) {
		with.prefixes = append(with.prefixes, prefix+"_")
	}
	for _, secret := range policy.Peppers {
		with.peppers = append(with.peppers, newPepper(secret))
	}
	with.ownKinds = with.peppers.ownForeign()
	with.foreign, with.foreignNames = make(map[pepperID]*pepper), make(map[string]*pepper)
	for name, secret := range policy.ForeignSecrets {
		p := newPepper(secret)
		with.foreign[p.id], with.foreignNames[name] = p, p
	}
	return with, nil
}

// Enforce puts that part of the policy in force which cannot differ between
// Keyrings of one store: the retention. Open does it too; With does not, for the
// configuration that it serves may still be refused. Another retention than the one
// before has all keys looked through once more.
func (k *Keyring) Enforce() {
	retention := int64(k.policy.Retention)
	if k.retention.Swap(retention) == retention {
		return
	}
	select {
	case k.enforced <- struct{}{}:
	default:
	}
}

// errNoPepper says that a digest cannot be made without a pepper that is gone.
var errNoPepper = errors.New("its pepper is not configured")

// countPepper is the count of the keys that were not revoked and whose digest has a
// pepper.
func countPepper(id pepperID) string { return "pepper/" + id.String() }

// CheckPeppers returns an error when keys in the store need a pepper that this
// Keyring does not have: nobody could use them. Revoked keys need none; expired ones
// count until their records are removed. One that wraps ErrUnavailable says that it
// could not be found out.
func (k *Keyring) CheckPeppers(ctx context.Context) error {
	var missing error
	err := k.view(ctx, "stats", func(tx Reader) error {
		return tx.Scan(TableCounts, Range{From: []byte("pepper/"), To: []byte("pepper0")}, func(key, value []byte) bool {
			var id uint32
			if _, err := fmt.Sscanf(strings.TrimPrefix(string(key), "pepper/"), "%08x", &id); err != nil {
				return true
			}
			missing = nil
			if n := number(value); n > 0 && k.peppers.find(pepperID(id)) == nil {
				missing = fmt.Errorf("%d keys in the store need a pepper that is not configured (its id is %s): configure it, after the new one if it was changed", n, pepperID(id))
			}
			return missing == nil
		})
	})
	if err != nil {
		return unavailable("checking the peppers of the key store", err)
	}
	return missing
}

// endOfLife returns when a key ends that is asked to end at a time, or not to
// end if it is zero.
func (p *Policy) endOfLife(asked, now time.Time) (time.Time, error) {
	switch {
	case asked.IsZero() && p.DefaultTTL != 0:
		return fromMillis(now.Add(p.DefaultTTL).UnixMilli()), nil
	case asked.IsZero():
		return time.Time{}, nil
	}
	// Asked of the time as it was given: a record cannot tell 1970 from never.
	end := asked.Truncate(time.Millisecond)
	if !now.Before(end) {
		return time.Time{}, &FieldError{"expiresAt", "must be in the future"}
	}
	if p.MaxTTL != 0 && end.After(now.Add(p.MaxTTL)) {
		return time.Time{}, &FieldError{"expiresAt", fmt.Sprintf("must be within %s from now", days(p.MaxTTL))}
	}
	return end.UTC(), nil
}

// days writes a duration as people configured it.
func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}
