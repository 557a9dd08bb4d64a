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

// appendBase62 appends number, a big-endian integer, as exactly width digits.
// It destroys number. The width must be enough to hold it.
func appendBase62(dst []byte, number []byte, width int) []byte {
	at := len(dst)
	for range width {
		dst = append(dst, '0')
	}
	for i := at + width - 1; i >= at; i-- {
		remainder := uint16(0)
		for j, b := range number {
			chunk := remainder<<8 | uint16(b)
			number[j] = byte(chunk / 62)
			remainder = chunk % 62
		}
		dst[i] = alphabet[remainder]
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

// parseUint128 reads 22 base62 digits as a number of 128 bits. It reports false
// for another character and for a number that needs more bits.
func parseUint128(text string) (high, low uint64, ok bool) {
	for len(text) > 0 {
		n := min(len(text), chunkDigits)
		var chunk uint64
		for i := range n {
			d := digitOf[text[i]]
			if d == notDigit {
				return 0, 0, false
			}
			chunk = chunk*62 + uint64(d)
		}
		over, shifted := bits.Mul64(high, powersOf62[n])
		if over != 0 {
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

// isBase62 reports whether text holds digits only.
func isBase62(text string) bool {
	all := uint8(0)
	for i := range len(text) {
		all |= digitOf[text[i]]
	}
	return all != notDigit // no digits together make up all of its bits
}
