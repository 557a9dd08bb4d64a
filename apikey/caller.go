package apikey

import "time"

// checkCaller looks at the caller's own key inside the write: it may have been
// revoked since the request was let in.
func checkCaller(tx Reader, by Principal, now time.Time) error {
	if by.KeyID.IsZero() {
		return nil
	}
	r, err := getRecord(tx, by.KeyID)
	switch {
	case err != nil:
		return err
	case r == nil || r.Revoked() || r.Expired(now) || r.OrganizationID != by.OrganizationID:
		return ErrCaller
	case r.Scope != ScopeReadWrite:
		return ErrScope
	}
	return nil
}

// refusalOr passes refusals on as they are and says of anything else what was
// being done.
func refusalOr(doing string, err error) error {
	if storeFault(err) == nil {
		return err
	}
	return unavailable(doing, err)
}
