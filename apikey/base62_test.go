package apikey

import (
	"bytes"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// digits writes n in base 62 by the book.
func digits(n *big.Int, width int) string {
	text := make([]byte, width)
	n, base, digit := new(big.Int).Set(n), big.NewInt(62), new(big.Int)
	for i := width - 1; i >= 0; i-- {
		n.QuoRem(n, base, digit)
		text[i] = alphabet[digit.Int64()]
	}
	return string(text)
}

var twoTo128 = new(big.Int).Lsh(big.NewInt(1), 128)

func randomID(random *rand.Rand) (id ID) {
	putHalves(&id, random.Uint64(), random.Uint64())
	return id
}

func TestBase62IsOfFixedWidthAndReadsBackAsTheSameNumber(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	ids := []ID{{}, {15: 1}, {15: 61}, {15: 62}, ID(bytes.Repeat([]byte{0xff}, 16))}
	for range 10_000 {
		id := randomID(random)
		for i := range random.IntN(len(id)) { // small numbers too
			id[i] = 0
		}
		ids = append(ids, id)
	}
	for _, id := range ids {
		text := string(id.appendDigits(nil))
		if want := digits(new(big.Int).SetBytes(id[:]), idDigits); text != want {
			t.Fatalf("%x is written %s, want %s", id[:], text, want)
		}
		if back, ok := parseIDDigits(text); !ok || back != id {
			t.Fatalf("%s is read as %x, %v, want %x", text, back[:], ok, id[:])
		}
	}
}

func TestBase62SortsAsTheNumbersDo(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	ids := make([]ID, 5_000)
	for i := range ids {
		ids[i] = randomID(random)
	}
	slices.SortFunc(ids, func(a, b ID) int { return bytes.Compare(a[:], b[:]) })
	if !slices.IsSortedFunc(ids, func(a, b ID) int { return strings.Compare(a.String(), b.String()) }) {
		t.Error("the texts of sorted ids are not sorted")
	}
}

func TestNumbersOfMoreThan128BitsAreRefused(t *testing.T) {
	one := big.NewInt(1)
	most := new(big.Int).Exp(big.NewInt(62), big.NewInt(idDigits), nil)
	for name, c := range map[string]struct {
		number *big.Int
		ok     bool
	}{
		"the largest of 128 bits":    {new(big.Int).Sub(twoTo128, one), true},
		"the smallest of 129 bits":   {twoTo128, false},
		"one more":                   {new(big.Int).Add(twoTo128, one), false},
		"twice the range":            {new(big.Int).Lsh(twoTo128, 1), false},
		"the largest of 22 digits":   {new(big.Int).Sub(most, one), false},
		"one that wraps to a small":  {new(big.Int).Add(twoTo128, big.NewInt(5)), false},
		"a low half that is all one": {new(big.Int).SetUint64(1<<64 - 1), true},
	} {
		if _, _, ok := parseUint128(digits(c.number, idDigits)); ok != c.ok {
			t.Errorf("%s: accepted is %v", name, ok)
		}
	}
	random := rand.New(rand.NewPCG(5, 6))
	for range 20_000 {
		text := make([]byte, idDigits)
		for i := range text {
			text[i] = alphabet[random.IntN(len(alphabet))]
		}
		text[0] = alphabet[random.IntN(10)] // about as many inside as outside
		number := new(big.Int)
		for _, c := range text {
			number.Mul(number, big.NewInt(62))
			number.Add(number, big.NewInt(int64(strings.IndexByte(alphabet, c))))
		}
		high, low, ok := parseUint128(string(text))
		if ok != (number.Cmp(twoTo128) < 0) {
			t.Fatalf("%s: accepted is %v", text, ok)
		}
		var id ID
		if putHalves(&id, high, low); ok && new(big.Int).SetBytes(id[:]).Cmp(number) != 0 {
			t.Fatalf("%s is read as %x", text, id[:])
		}
	}
}

func TestOnlyDigitsAreDigits(t *testing.T) {
	for c := range 256 {
		want := strings.IndexByte(alphabet, byte(c)) >= 0
		for at := range idDigits {
			text := []byte(strings.Repeat("1", idDigits))
			text[at] = byte(c)
			small := at > 0 || byte(c) <= '7' // or it may need more than 128 bits
			if _, _, ok := parseUint128(string(text)); ok != (want && small) {
				t.Fatalf("%q as a number: accepted is %v", text, ok)
			}
			if ok := isBase62(string(text)); ok != want {
				t.Fatalf("%q as digits: accepted is %v", text, ok)
			}
		}
	}
}
