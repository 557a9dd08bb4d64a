package main_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestKeyThatIsUsedFromAnotherNetworkIsInTheAuditLog(t *testing.T) {
	g := startGateway(t, strings.Replace(plainSite, "	grace_period 3s\n", `	grace_period 3s
	servers {
		trusted_proxies static 127.0.0.0/8
	}
`, 1))
	key := g.issue(nil)
	use := func(address string) {
		t.Helper()
		req, err := http.NewRequest("GET", g.url+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Authorization": {"Bearer " + key["key"]}, "X-Forwarded-For": {address}, "User-Agent": {"example/1"}}
		resp, err := g.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Fatalf("HTTP %d", resp.StatusCode)
		}
	}
	told := func() bool { return strings.Contains(g.log(), "api key client changed") }
	use("192.0.2.1")
	use("192.0.2.200")
	g.stop() // brings all to the store
	if told() {
		t.Error("the first network of a key was told of")
	}
	g.start()
	use("198.51.100.1")
	waitFor(t, "the audit log to tell", told)
	for line := range strings.Lines(g.log()) {
		if strings.Contains(line, "api key client changed") {
			for _, part := range []string{"api_keys.audit", key["id"], `"network"`, "192.0.2.200", "198.51.100.1", "example/1", "acme"} {
				if !strings.Contains(line, part) {
					t.Errorf("%s is not in %s", part, line)
				}
			}
		}
	}
}
