package apikey

import "math/bits"

// The alphabet is in ASCII order, so that fixed-width texts sort as the
// numbers they stand for.
const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

const notDigit = 0xff

var digitOf = func() (table [256]uint8) {
	for i := range table {
		table[i] = notDigit
	}
	for i := range len(alphabet) {
		table[alphabet[i]] = uint8(i)
	}
	return table
}()

// Digits are written in groups: as many as a uint64 holds beside a byte.
const (
	groupDigits = 9
	groupBase   = 62 * 62 * 62 * 62 * 62 * 62 * 62 * 62 * 62
)

// appendBase62 appends number, a big-endian integer, as exactly width digits.
// It destroys number. The width must be enough to hold it.
func appendBase62(dst []byte, number []byte, width int) []byte {
	at := len(dst)
	for range width {
		dst = append(dst, '0')
	}
	for end := len(dst); end > at; end -= groupDigits {
		group := uint64(0)
		for j, b := range number {
			chunk := group<<8 | uint64(b)
			number[j] = byte(chunk / groupBase)
			group = chunk % groupBase
		}
		for i := end - 1; i >= max(at, end-groupDigits); i-- {
			dst[i] = alphabet[group%62]
			group /= 62
		}
	}
	return dst
}

// The chunk of digits that fits a uint64 with room for the carry.
const chunkDigits = 10

var powersOf62 = func() (powers [chunkDigits + 1]uint64) {
	powers[0] = 1
	for i := 1; i <= chunkDigits; i++ {
		powers[i] = powers[i-1] * 62
	}
	return powers
}()

// appendUint128 appends a number of 128 bits as 22 digits. It does what
// appendBase62 does, in a fraction of the time.
func appendUint128(dst []byte, high, low uint64) []byte {
	var digits [22]byte
	for end := len(digits); end > 0; end -= chunkDigits {
		var chunk uint64
		rest := high % powersOf62[chunkDigits]
		high /= powersOf62[chunkDigits]
		low, chunk = bits.Div64(rest, low, powersOf62[chunkDigits])
		for i := end - 1; i >= max(0, end-chunkDigits); i-- {
			digits[i] = alphabet[chunk%62]
			chunk /= 62
		}
	}
	return append(dst, digits[:]...)
}

// parseUint128 reads an even number of base62 digits, up to 22, as a number of 128
// bits. It reports false for another character and for a number that needs more bits.
func parseUint128(text string) (high, low uint64, ok bool) {
	for len(text) > 0 {
		n := min(len(text), chunkDigits)
		chunk, ok := parseChunk(text[:n])
		over, shifted := bits.Mul64(high, powersOf62[n])
		if !ok || over != 0 {
			return 0, 0, false
		}
		carry, product := bits.Mul64(low, powersOf62[n])
		var c uint64
		low, c = bits.Add64(product, chunk, 0)
		high, c = bits.Add64(shifted, carry, c)
		if c != 0 {
			return 0, 0, false
		}
		text = text[n:]
	}
	return high, low, true
}

// parseChunk reads an even number of digits, up to chunkDigits. It goes by pairs: each
// multiplication waits for the one before it.
func parseChunk(text string) (chunk uint64, ok bool) {
	seen := uint8(0)
	for ; len(text) >= 2; text = text[2:] {
		first, second := digitOf[text[0]], digitOf[text[1]]
		seen |= first | second
		chunk = chunk*(62*62) + uint64(first)*62 + uint64(second)
	}
	return chunk, seen < 64 // only notDigit has a higher bit
}

// isBase62 reports whether text holds digits only.
func isBase62(text string) bool {
	for i := range len(text) {
		if digitOf[text[i]] == notDigit {
			return false
		}
	}
	return true
}
