package main_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// under is the plain site with other words in the global option.
func under(words ...string) string {
	return strings.Replace(plainSite, "\t\tper_key_metrics 1000\n", "\t\t"+strings.Join(words, "\n\t\t")+"\n", 1)
}

// reloadUnder puts a policy in force.
func (g *gateway) reloadUnder(words ...string) {
	g.t.Helper()
	if err := g.reload(under(words...)); err != nil {
		g.t.Fatal(err)
	}
}

func TestThePolicyRulesWhatKeysMayBe(t *testing.T) {
	g := startGateway(t, plainSite)
	caller, endless := g.issueIn("acme", "alice"), g.issueIn("acme", "alice")
	create := func(body string) answer { return g.do("POST", "/v1/api-keys", body, bearer(caller), asJSON) }
	patch := func(id, body string) answer {
		return g.do("PATCH", "/v1/api-keys/"+id, body, bearer(caller), asJSON)
	}
	livesFor := func(key map[string]string, want time.Duration) {
		t.Helper()
		end, err := time.Parse(time.RFC3339Nano, key["expiresAt"])
		if got := time.Until(end); err != nil || (got-want).Abs() > time.Minute {
			t.Errorf("it lives until %q, want %v", key["expiresAt"], want)
		}
	}

	g.reloadUnder("max_ttl 1h", "default_ttl 30m")
	key := g.requireKey(create(`{"name":"x"}`))
	livesFor(key, 30*time.Minute)
	livesFor(g.requireKey(create(`{"name":"x","expiresAt":"`+inSeconds(3000)+`"}`)), 50*time.Minute)
	g.requireRefused(create(`{"name":"x","expiresAt":"`+inSeconds(7200)+`"}`), 400, "invalid_field")
	g.requireRefused(patch(key["id"], `{"expiresAt":"`+inSeconds(7200)+`"}`), 400, "invalid_field")
	g.requireRefused(patch(key["id"], `{"expiresAt":null}`), 400, "invalid_field")
	livesFor(g.requireKey(g.do("POST", "/v1/api-keys/"+endless["id"]+"/rotate", `{"gracePeriod":"1d"}`, bearer(caller), asJSON)), 30*time.Minute)
	livesFor(g.look(endless["id"]), time.Hour)
	g.reloadUnder("max_ttl 1h")
	livesFor(g.requireKey(create(`{"name":"x"}`)), time.Hour)

	g.reloadUnder("prefix acme_live", "retired_prefixes ak")
	renamed := g.requireKey(create(`{"name":"x"}`))
	if !strings.HasPrefix(renamed["key"], "acme_live_") || !strings.HasPrefix(renamed["keyPrefix"], "acme_live_") {
		t.Error("the new prefix is not used")
	}
	g.requireStatus(200, "GET", "/", renamed["key"])
	g.requireStatus(200, "GET", "/", caller["key"])
	g.reloadUnder("prefix acme_live")
	g.requireStatus(200, "GET", "/", renamed["key"])
	g.requireStatus(401, "GET", "/", caller["key"])
	for _, words := range []string{"prefix a-b", "max_ttl 1h\ndefault_ttl 2h", "usage some", "management nobody", "retention -1h", "max_keys_per_organization some"} {
		if err := g.reload(under(words)); err == nil {
			t.Errorf("%q was accepted", words)
		}
	}
	g.requireStatus(200, "GET", "/", renamed["key"])
}

func TestAnOrganizationHasNoMoreActiveKeysThanItMay(t *testing.T) {
	g := startGateway(t, under("max_keys_per_organization 3"))
	caller := g.issueIn("acme", "alice")
	create := func(body string) answer { return g.do("POST", "/v1/api-keys", body, bearer(caller), asJSON) }
	second := g.requireKey(create(`{"name":"x"}`))
	expiring := g.requireKey(create(`{"name":"x","expiresAt":"` + inSeconds(2) + `"}`))
	g.requireRefused(create(`{"name":"x"}`), 403, "key_limit")
	g.issueIn("globex", "alice") // has its own
	g.requireKey(g.do("DELETE", "/v1/api-keys/"+second["id"], "", bearer(caller)))
	third := g.requireKey(create(`{"name":"x"}`))
	waitFor(t, "the key to expire", func() bool { return g.send("GET", "/", expiring["key"], "").status == 401 })
	g.requireKey(create(`{"name":"x"}`))
	g.requireRefused(create(`{"name":"x"}`), 403, "key_limit")
	g.requireRefused(g.do("PATCH", "/v1/api-keys/"+expiring["id"], `{"expiresAt":null}`, bearer(caller), asJSON), 403, "key_limit")
	g.requireKey(g.do("POST", "/v1/api-keys/"+third["id"]+"/rotate", `{}`, bearer(caller), asJSON))
	g.requireRefused(create(`{"name":"x"}`), 403, "key_limit")
}

func TestOnlyAsMuchOfUsesIsKeptAsIsConfigured(t *testing.T) {
	g := startGateway(t, plainSite)
	for _, row := range []struct {
		mode          string
		at, fromWhere bool
	}{{"full", true, true}, {"time", true, false}, {"off", false, false}} {
		g.reloadUnder("usage "+row.mode, "usage_resolution 10s")
		key := g.issue(nil)
		g.requireStatus(200, "GET", "/", key["key"])
		for _, restarted := range []bool{false, true} {
			seen := g.look(key["id"])
			if (seen["lastUsedAt"] != "") != row.at || (seen["lastUsedIp"] != "") != row.fromWhere || (seen["lastUsedUserAgent"] != "") != row.fromWhere {
				t.Errorf("usage %s, after a restart %v: %v", row.mode, restarted, seen)
			}
			if !restarted {
				g.configure(under("usage " + row.mode))
				g.stop()
				g.start()
			}
		}
	}
}

func TestRecordsOfEndedKeysGoAfterTheRetention(t *testing.T) {
	g := startGateway(t, under("retention 1h"))
	good, revoked, expired := g.issue(nil), g.issue(nil), g.issue(map[string]string{"expiresAt": inSeconds(1)})
	g.run(g.command("api-keys", "revoke", revoked["id"]))
	waitFor(t, "the key to expire", func() bool { return g.send("GET", "/", expired["key"], "").status == 401 })
	there := func(id string) bool {
		status, _, err := g.ask("GET", "/api_keys/keys/"+id, nil, "")
		if err != nil || status != 200 && status != 404 {
			t.Errorf("HTTP %d, %v", status, err)
		}
		return status == 200
	}
	for _, key := range []map[string]string{good, revoked, expired} {
		if !there(key["id"]) {
			t.Errorf("%v is gone before its time", key["id"])
		}
	}
	g.configure(under("retention 1ms"))
	g.stop()
	g.start()
	waitFor(t, "the records to go", func() bool { return !there(revoked["id"]) && !there(expired["id"]) })
	g.requireStatus(200, "GET", "/", good["key"])
	g.requireStatus(401, "GET", "/", revoked["key"])
	g.requireStatus(401, "GET", "/", expired["key"])
}

func TestAServerDoesNotStartWithoutThePepperOfItsKeys(t *testing.T) {
	const first, second = "salt-and-more-salt-0001", "salt-and-more-salt-0002"
	g := startGateway(t, plainSite)
	plain := g.issue(nil)
	if err := os.WriteFile(filepath.Join(g.home, "empty"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() // where secrets may be
	file := filepath.Join(dir, "pepper")
	if err := os.WriteFile(file, []byte(first+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.env = append(g.env, "SECOND_PEPPER="+second, "EMPTY_PEPPER=")
	ofFile, ofEnv := "pepper {file."+file+"}", "pepper {env.SECOND_PEPPER}"
	refuses := func(says string, words ...string) {
		t.Helper()
		g.configure(under(words...))
		ctx, cancel := context.WithTimeout(t.Context(), patience) // should it start
		defer cancel()
		cmd := exec.CommandContext(ctx, binary, "run", "--config", g.file)
		cmd.Dir, cmd.Env = g.home, g.env
		stdout, stderr, code := g.run(cmd)
		if code == 0 || !strings.Contains(stdout+stderr, says) {
			t.Errorf("%q: exit code %d, %s", words, code, lastLines(stdout+stderr, 2))
		}
		if text := stdout + stderr; strings.Contains(text, first) || strings.Contains(text, second) {
			t.Errorf("%q: a pepper is printed", words)
		}
	}
	restart := func(words ...string) {
		t.Helper()
		g.configure(under(words...))
		g.start()
	}
	g.stop()
	refuses("pepper", "pepper {file."+g.home+"/nowhere}")
	refuses("pepper", "pepper {file."+g.home+"/empty}")
	refuses("pepper", "pepper {env.EMPTY_PEPPER}")
	refuses("pepper", "pepper {env.NO_SUCH_PEPPER}")

	restart(ofFile)
	peppered := g.issue(nil)
	for _, key := range []map[string]string{plain, peppered} {
		g.requireStatus(200, "GET", "/", key["key"])
	}
	g.stop()
	refuses("need a pepper that is not configured")
	refuses("need a pepper that is not configured", ofEnv)

	// Two at once, until all keys were used.
	restart(ofEnv, ofFile)
	for _, key := range []map[string]string{plain, peppered, g.issue(nil)} {
		g.requireStatus(200, "GET", "/", key["key"])
	}
	waitFor(t, "the digests to be made anew", func() bool {
		status, body, err := g.ask("GET", "/api_keys/export?hashes=true", nil, "")
		kinds := make(map[string]bool)
		for line := range strings.Lines(string(body)) {
			_, kind, _ := strings.Cut(line, `"pepper":"`)
			kind, _, _ = strings.Cut(kind, `"`)
			kinds[kind] = true
		}
		return err == nil && status == 200 && len(kinds) == 1 && !kinds[""]
	})
	for _, text := range []string{g.get("/config/"), g.get("/metrics"), g.get("/api_keys/export?hashes=true"), g.log()} {
		if strings.Contains(text, first) || strings.Contains(text, second) {
			t.Error("a pepper is in the log, or in an answer of the admin endpoint")
		}
	}
	g.stop()
	refuses("need a pepper that is not configured", ofFile)
	restart(ofEnv)
	for _, key := range []map[string]string{plain, peppered} {
		g.requireStatus(200, "GET", "/", key["key"])
	}
}

func TestManagementCanBeTheOperatorsAlone(t *testing.T) {
	g := startGateway(t, under("management operator"))
	caller := g.issueIn("acme", "alice")
	for _, call := range []string{"POST ", "GET ", "GET /self", "POST /verify", "POST /revoke", "PATCH /" + caller["id"], "DELETE /" + caller["id"], "POST /" + caller["id"] + "/rotate"} {
		method, path, _ := strings.Cut(call, " ")
		g.requireRefused(g.do(method, "/v1/api-keys"+path, fmt.Sprintf(`{"name":%q}`, "x"), bearer(caller), asJSON), 403, "operator_only")
	}
	g.requireStatus(200, "POST", "/", caller["key"])
	if stdout, stderr, code := g.run(g.command("api-keys", "revoke", caller["id"])); code != 0 {
		t.Error(stdout, stderr)
	}
	g.requireStatus(401, "GET", "/", caller["key"])
}
