//go:build unix && !race

package apikey

import "syscall"

// mapMemory returns zeroed memory of the system and what gives it back.
func mapMemory(size int) (memory []byte, release func([]byte), err error) {
	memory, err = syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err == nil {
		inLargePages(memory)
	}
	return memory, func(memory []byte) { _ = syscall.Munmap(memory) }, err
}
