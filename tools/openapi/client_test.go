package openapi

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/oapi-codegen/nullable"

	"github.com/caddy-apikeys/caddy-apikeys/tools/openapi/client"
)

// TestAGeneratedClientManagesKeys is the life of a key, as someone lives it who has
// nothing but the document.
func TestAGeneratedClientManagesKeys(t *testing.T) {
	g := startGateway(t)
	d := read(t)
	as := func(token string) *client.ClientWithResponses {
		c, err := client.NewClientWithResponses(g.url, client.WithHTTPClient(judged{d, t}),
			client.WithRequestEditorFn(func(_ context.Context, req *http.Request) error {
				req.Header.Set("Authorization", "Bearer "+token)
				return nil
			}))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ctx := t.Context()
	first := g.issue("alice", "read-write")
	alice := as(first)

	// Issue.
	end := time.Now().Add(48 * time.Hour).UTC().Truncate(time.Second)
	made, err := alice.CreateKeyWithResponse(ctx, &client.CreateKeyParams{IdempotencyKey: new("call-1")}, client.CreateKey{
		Name:        "reports",
		Description: nullable.NewNullableWithValue("of every month"),
		ExpiresAt:   nullable.NewNullableWithValue(end),
	})
	if err != nil || made.JSON200 == nil {
		t.Fatalf("%v %s", err, made.Body)
	}
	key := made.JSON200.Data
	if key.Name != "reports" || key.Scope != client.Read || !key.ExpiresAt.Equal(end) || *key.UserId != "alice" || key.Key == nil {
		t.Errorf("made %+v", key)
	}
	again, err := alice.CreateKeyWithResponse(ctx, &client.CreateKeyParams{IdempotencyKey: new("call-1")}, client.CreateKey{Name: "another"})
	if err != nil || again.JSON422 == nil || again.JSON422.Data.Reason != client.ReasonIdempotencyReused {
		t.Errorf("%v %s", err, again.Body)
	}

	// The key works, and sees itself.
	reader := as(*key.Key)
	self, err := reader.GetSelfWithResponse(ctx)
	if err != nil || self.JSON200 == nil || self.JSON200.Data.Id != key.Id {
		t.Errorf("%v %s", err, self.Body)
	}
	refused, err := reader.ListKeysWithResponse(ctx, nil)
	if err != nil || refused.JSON403 == nil || refused.JSON403.Data.Reason != client.ReasonInsufficientScope {
		t.Errorf("%v %s", err, refused.Body)
	}

	// List, page by page.
	listed := 0
	params := client.ListKeysParams{Limit: new(1), Status: new(client.ListKeysParamsStatusActive)}
	for {
		page, err := alice.ListKeysWithResponse(ctx, &params)
		if err != nil || page.JSON200 == nil {
			t.Fatalf("%v %s", err, page.Body)
		}
		listed += len(page.JSON200.Data.Items)
		if params.Cursor = page.JSON200.Data.NextCursor; params.Cursor == nil {
			break
		}
	}
	if listed != 2 {
		t.Errorf("listed %d keys", listed)
	}

	// Get and update.
	got, err := alice.GetKeyWithResponse(ctx, key.Id)
	if err != nil || got.JSON200 == nil || got.JSON200.Data.LastUsedAt == nil || got.JSON200.Data.Key != nil {
		t.Errorf("%v %s", err, got.Body)
	}
	changed, err := alice.UpdateKeyWithResponse(ctx, key.Id, client.UpdateKey{
		Scope:       nullable.NewNullableWithValue(client.ReadWrite),
		Description: nullable.NewNullNullable[string](),
		ExpiresAt:   nullable.NewNullNullable[time.Time](),
	})
	if err != nil || changed.JSON200 == nil || changed.JSON200.Data.Scope != client.ReadWrite ||
		changed.JSON200.Data.Description != nil || changed.JSON200.Data.ExpiresAt != nil || changed.JSON200.Data.Name != "reports" {
		t.Errorf("%v %s", err, changed.Body)
	}

	// Rotate and verify.
	rotated, err := alice.RotateKeyWithResponse(ctx, key.Id, nil, client.RotateKey{GracePeriod: nullable.NewNullableWithValue("0")})
	if err != nil || rotated.JSON200 == nil {
		t.Fatalf("%v %s", err, rotated.Body)
	}
	next := rotated.JSON200.Data
	old, err := alice.VerifyKeyWithResponse(ctx, client.VerifyKey{Key: *key.Key})
	if err != nil || old.JSON404 == nil {
		t.Errorf("%v %s", err, old.Body)
	}
	verified, err := alice.VerifyKeyWithResponse(ctx, client.VerifyKey{Key: *next.Key})
	if err != nil || verified.JSON200 == nil || verified.JSON200.Data.Id != next.Id {
		t.Errorf("%v %s", err, verified.Body)
	}

	// Revoke, one and many.
	revoked, err := alice.RevokeKeyWithResponse(ctx, next.Id)
	if err != nil || revoked.JSON200 == nil || revoked.JSON200.Data.RevokedAt == nil {
		t.Errorf("%v %s", err, revoked.Body)
	}
	if dead, err := as(*next.Key).GetSelfWithResponse(ctx); err != nil || dead.JSON401 == nil || dead.JSON401.Data.Reason != client.ReasonInvalidToken {
		t.Errorf("%v %s", err, dead.Body)
	}
	many, err := alice.RevokeKeysWithResponse(ctx, client.RevokeKeys{UserId: nullable.NewNullableWithValue("alice")})
	if err != nil || many.JSON200 == nil || many.JSON200.Data.Revoked != 1 {
		t.Errorf("%v %s", err, many.Body)
	}
	if dead, err := alice.GetSelfWithResponse(ctx); err != nil || dead.JSON401 == nil {
		t.Errorf("%v %s", err, dead.Body)
	}

	// The document, by itself.
	if described, err := as("").GetOpenAPIWithResponse(ctx, nil); err != nil || described.StatusCode() != 200 {
		t.Errorf("%v %d", err, described.StatusCode())
	}
}
