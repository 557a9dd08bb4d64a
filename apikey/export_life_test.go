package apikey

import "context"

// Renew writes the digests that wait to be made anew.
func (k *Keyring) Renew(ctx context.Context) { k.writeRenewals(ctx) }

// ForgetCalls removes the calls that are too old to be repeated.
func (k *Keyring) ForgetCalls(ctx context.Context) error { return k.forgetCalls(ctx, k.clock()) }
