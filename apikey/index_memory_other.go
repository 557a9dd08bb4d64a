//go:build !unix

package apikey

import "errors"

func mapMemory(int) (memory []byte, release func([]byte), err error) {
	return nil, nil, errors.ErrUnsupported
}
