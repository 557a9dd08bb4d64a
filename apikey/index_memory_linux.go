//go:build !race

package apikey

import "syscall"

// inLargePages asks for memory in large pages, where the system leaves that to
// programs: each lookup is at another place, and finding out where that is costs as
// much as looking there.
func inLargePages(memory []byte) { _ = syscall.Madvise(memory, syscall.MADV_HUGEPAGE) }
