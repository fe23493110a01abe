//go:build !(amd64 || arm64) || purego || race

package pmem

// flushName returns the name of the write-back instruction, for messages and tests.
func flushName() string { return "none" }

func store8(p []byte, v uint64)   { portableStore8(p, v) }
func copyWords(dst, src []byte)   { portableCopyWords(dst, src) }
func ntCopyLines(dst, src []byte) { portableNTCopyLines(dst, src) }
func ntZeroLines(dst []byte)      { portableNTZeroLines(dst) }
func flushLines(b []byte)         { portableFlushLines(b) }
func flushLinesFence(b []byte)    { portableFlushLines(b); portableFence() }
func fence()                      { portableFence() }
func loadBarrier()                { portableFence() }
func prefetch(p, lines uintptr)   {}
