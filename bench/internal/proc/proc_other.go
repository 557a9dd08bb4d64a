//go:build !linux

package proc

import (
	"errors"
	"os"
	"time"
)

// CPU fails: it is written for Linux.
func CPU(int) (time.Duration, error) { return 0, errors.ErrUnsupported }

// Family returns the process alone.
func Family(pid int) []int { return []int{pid} }

// MemoryOf fails: it is written for Linux.
func MemoryOf(int) (Memory, error) { return Memory{}, errors.ErrUnsupported }

// BytesRead fails: it is written for Linux.
func BytesRead(int) (uint64, error) { return 0, errors.ErrUnsupported }

// DropCached fails: it is written for Linux.
func DropCached(string) error { return errors.ErrUnsupported }

// Kernel fails: it is written for Linux.
func Kernel() (string, error) { return "", errors.ErrUnsupported }

func fdatasync(*os.File) error { return errors.ErrUnsupported }
