package apikey

import "context"

// Verify says whether a token is that of a good key. A wrong checksum costs no
// lookup, an unknown key one, and neither a write. The error, if any, wraps
// ErrUnavailable: it could not be found out, and the verdict says
// ReasonUnavailable.
func (k *Keyring) Verify(ctx context.Context, token string) (v Verdict, err error) {
	id, secret, reason := parseToken(token, k.prefixes)
	switch {
	case reason == ReasonMalformed && !hasAnyPrefix(token, k.prefixes):
		return k.verifyForeign(ctx, token) // whatever has our prefix is ours
	case reason != ReasonNone:
		v.Reason = reason
		return v, nil
	}
	var e entryView
	if !k.index.find(id, &e) {
		if !isBase62(secret) {
			return Verdict{Reason: ReasonMalformed}, nil
		}
		return k.verifyStored(ctx, id, secret)
	}
	if !k.peppers.can(&e.digest) { // a Keyring with other peppers read it
		if e.state&stateRevoked != 0 {
			return Verdict{Reason: ReasonUnknown}, nil // whatever the secret is
		}
		return Verdict{Reason: ReasonUnavailable}, unavailable("checking key "+id.String(), errNoPepper)
	}
	e.judge(&v, k.peppers, id, secret, k.clock().UnixMilli())
	if !v.KeyID.IsZero() && v.Reason != ReasonRevoked && k.peppers.outdated(&e.digest) {
		k.renew(id, renewal{from: e.digest, to: k.peppers.digestOf(secret)})
	}
	return v, nil
}

// judge reaches the verdict. It compares the secret before it looks at anything
// else: who does not have it must not learn in what state the key is.
func (e *entryView) judge(v *Verdict, all peppers, id ID, secret string, now int64) {
	switch {
	case all.match(&e.digest, secret):
		e.standing(v, id, now)
	case isBase62(secret):
		v.Reason = ReasonUnknown
	default:
		v.Reason = ReasonMalformed
	}
}

// standing says how a key stands whose token was presented.
func (e *entryView) standing(v *Verdict, id ID, now int64) {
	v.KeyID, v.OrganizationID = id, e.organization
	v.ExpiresAt = fromMillis(e.expires)
	v.entry, v.at = e.slot, now
	if e.state&stateServiceAccount != 0 {
		v.ServiceAccountID = e.owner
	} else {
		v.UserID = e.owner
	}
	if e.state&stateReadWrite != 0 {
		v.Scope = ScopeReadWrite
	}
	switch {
	case e.state&stateRevoked != 0:
		v.Reason = ReasonRevoked
	case e.expires != 0 && now >= e.expires:
		v.Reason = ReasonExpired
	}
}

func (k *Keyring) verifyStored(ctx context.Context, id ID, secret string) (v Verdict, err error) {
	ticket := k.index.ticket(id)
	l, err := k.lookUp(ctx, id)
	if err != nil {
		return Verdict{Reason: ReasonUnavailable}, err
	}
	defer l.end()
	e := &l.entry
	revoked := e.state&stateRevoked != 0
	if l.found && !revoked && !k.peppers.can(&e.digest) {
		return Verdict{Reason: ReasonUnavailable}, unavailable("checking key "+id.String(), errNoPepper)
	}
	if !l.found || !k.peppers.match(&e.digest, secret) {
		// Not filled in: a stranger who knows an id must not be able to
		// drive keys that are in use out of the index.
		return Verdict{Reason: ReasonUnknown}, nil
	}
	if !revoked && k.peppers.outdated(&e.digest) {
		k.renew(id, renewal{from: e.digest, to: k.peppers.digestOf(secret)})
	}
	e.slot = k.index.fill(ticket, e)
	e.standing(&v, id, k.clock().UnixMilli())
	return v, nil
}

// Use records that a key was accepted for a request, as of the time at which it
// was verified. address is the client's IP address as text; it and the user
// agent are kept cleaned and cut, whatever a client sends. Use does no I/O.
func (k *Keyring) Use(v *Verdict, address, userAgent string) {
	switch k.policy.Usage {
	case UsageOff:
		return
	case UsageTime:
		address, userAgent = "", ""
	}
	k.recorder.record(v, address, userAgent, k.prefixes)
}
