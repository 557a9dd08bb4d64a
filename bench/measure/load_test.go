package main

import "testing"

func TestResultOfWrkIsRead(t *testing.T) {
	const out = `Running 2s test @ http://127.0.0.1:1/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     2.00ms    1.00ms  20.00ms   90.00%
  Latency Distribution
     99%    5.00ms
  20000 requests in 2.00s, 3.00MB read
{"requests":20000,"us":2000000,"p50":1500.0,"p99":5000.0,"refused":3,"broken":1}
`
	got, err := parseWrk([]byte(out))
	want := shot{Requests: 20000, Seconds: 2, P50: 1.5, P99: 5, mismatched: 3, broken: 1}
	if err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got.PerSecond() != 10000 {
		t.Errorf("%v requests a second", got.PerSecond())
	}
}

func TestALoadWithoutAnswersIsAnError(t *testing.T) {
	for name, out := range map[string]string{
		"nothing printed": "unable to connect to 127.0.0.1:1 Connection refused\n",
		"no request":      `{"requests":0,"us":2000000,"p50":0.0,"p99":0.0,"refused":0,"broken":16}`,
		"half a line":     `{"requests":1,"us":`,
	} {
		if got, err := parseWrk([]byte(out)); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

const h2loadOutput = `starting benchmark...
TLS Protocol: TLSv1.3
Cipher: TLS_AES_128_GCM_SHA256
Application protocol: h2
progress: 100% done

finished in 2.00s, 8123.50 req/s, 1.01MB/s
requests: 16247 total, 16263 started, 16247 done, 16240 succeeded, 7 failed, 0 errored, 0 timeout
status codes: 16240 2xx, 0 3xx, 7 4xx, 0 5xx
`

func TestResultOfH2loadIsRead(t *testing.T) {
	got, err := parseH2load([]byte(h2loadOutput))
	if want := (shot{Requests: 16247, mismatched: 7}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestHTTP1DoesNotPassForHTTP2(t *testing.T) {
	text := []byte("Application protocol: http/1.1" + h2loadOutput[len("starting benchmark...\n"):])
	text = h2Protocol.ReplaceAll(text, []byte("Application protocol: http/1.1"))
	if got, err := parseH2load(text); err == nil {
		t.Errorf("got %+v", got)
	}
}
