package main

import (
	"reflect"
	"testing"
)

func TestGoBenchmarksAreRead(t *testing.T) {
	const out = `goos: linux
BenchmarkVerifyHit/keys=1   	 7000000	       150.5 ns/op	       0 B/op	       0 allocs/op
BenchmarkVerifyHit/keys=1   	 7000000	       149.5 ns/op	       0 B/op	       0 allocs/op
BenchmarkGC/ours-2	      10	   1000000 ns/op
PASS
`
	got, err := parseGoBench([]byte(out))
	want := []goBench{
		{Name: "VerifyHit/keys=1", NsOp: []float64{150.5, 149.5}, Bytes: []float64{0, 0}, Alloc: []float64{0, 0}},
		{Name: "GC/ours-2", NsOp: []float64{1e6}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}
