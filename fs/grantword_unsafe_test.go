package fs_test

import "unsafe"

// word loads the word at byte offset off, a multiple of 8, in one instruction. The race detector
// must not see it: a program's loads and stores are ordered with nothing that the daemon does.
//
//go:norace
//go:noinline
func word(b []byte, off int64) uint64 {
	return *(*uint64)(unsafe.Pointer(&b[off : off+8][0]))
}

// setWord stores the word at byte offset off, as word loads it.
//
//go:norace
//go:noinline
func setWord(b []byte, off int64, v uint64) {
	*(*uint64)(unsafe.Pointer(&b[off : off+8][0])) = v
}
