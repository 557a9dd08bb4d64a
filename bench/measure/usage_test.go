package main

import (
	"bufio"
	"strings"
	"testing"
)

const metricsText = `# TYPE caddy_api_keys_usage_flush_duration_seconds histogram
caddy_api_keys_usage_flush_duration_seconds_bucket{le="0.1"} 5
caddy_api_keys_usage_flush_duration_seconds_bucket{le="0.5"} 9
caddy_api_keys_usage_flush_duration_seconds_bucket{le="1"} 10
caddy_api_keys_usage_flush_duration_seconds_bucket{le="+Inf"} 10
caddy_api_keys_usage_flush_duration_seconds_sum 2.5
caddy_api_keys_usage_flush_duration_seconds_count 10
`

func TestHistogramIsRead(t *testing.T) {
	got, err := parseHistogram(bufio.NewScanner(strings.NewReader(metricsText)), "caddy_api_keys_usage_flush_duration_seconds")
	if want := (histogram{count: 10, sum: 2.5, most: 1}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestAHistogramWithoutABoundHasNone(t *testing.T) {
	text := strings.Replace(metricsText, `le="1"} 10`, `le="1"} 9`, 1)
	got, err := parseHistogram(bufio.NewScanner(strings.NewReader(text)), "caddy_api_keys_usage_flush_duration_seconds")
	if err != nil || got.most != -1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestAMetricThatIsGoneIsAnError(t *testing.T) {
	if got, err := parseHistogram(bufio.NewScanner(strings.NewReader(metricsText)), "another"); err == nil {
		t.Errorf("got %+v", got)
	}
}
