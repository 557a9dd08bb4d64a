package apikey

import "time"

// What the tests from outside borrow.

// LeastCapacity is the capacity of the smallest index.
const LeastCapacity = minCapacity

// Resum appends the checksum that makes the start of a token a whole one.
func Resum(start string) string {
	at := len(start) - secretDigits - idDigits
	return assemble(start[:at-1], start[at:at+idDigits], start[at+idDigits:])
}

func (id ID) Time() time.Time { return id.time() }
