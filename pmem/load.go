package pmem

import (
	"fmt"
	"runtime/debug"
)

// chunkSize is how many bytes one uninterruptible copy handles at most. Assembly
// cannot be preempted, and the garbage collector would wait for it.
const chunkSize = 256 << 10

// Bytes is the part of the read-only mapping at off, n bytes long. It allocates
// nothing. A load from it is not guarded: on poisoned or truncated memory it kills
// the process. A store through it faults. It panics if the range is not in the
// region.
func (r *Region) Bytes(off, n int64) []byte {
	if !r.in(off, n) {
		panic(fmt.Sprintf("pmem: Bytes of %d bytes at offset %d: %s has %d", n, off, r.path, r.size))
	}
	return r.ro[off : off+n : off+n]
}

// Load copies len(dst) bytes at off out of the region. After ErrMedia, dst holds
// anything.
func (r *Region) Load(off int64, dst []byte) (err error) {
	n := int64(len(dst))
	if !r.in(off, n) {
		return r.refuse("Load", off, n, false)
	}
	defer r.guard(debug.SetPanicOnFault(true), &err)
	Copy(dst, r.ro[off:off+n])
	return nil
}

// Copy is copy(dst, src) for memory of any length: by pieces, between which the garbage collector
// can stop it, and of which none is so long (1 MiB) that it goes past the caches, from which who
// copied takes it next. A fault is not guarded.
func Copy(dst, src []byte) (n int) {
	for src = src[:min(len(src), len(dst))]; n < len(src); {
		n += copy(dst[n:], src[n:min(len(src), n+chunkSize)])
	}
	return n
}

// Gather copies slices that Bytes returned, or of other memory, to dst one behind the other, as
// far as they fit, and returns how many bytes that is. After ErrMedia, dst holds anything.
func (r *Region) Gather(dst []byte, src [][]byte) (n int, err error) {
	defer r.guard(debug.SetPanicOnFault(true), &err)
	for _, s := range src {
		n += Copy(dst[n:], s)
	}
	return n, nil
}

// LoadLine copies the 64 bytes at off, normally one line, out of the region.
func (r *Region) LoadLine(off int64, dst *[64]byte) (err error) {
	if !r.in(off, lineSize) {
		return r.refuse("LoadLine", off, lineSize, false)
	}
	defer r.guard(debug.SetPanicOnFault(true), &err)
	*dst = [lineSize]byte(r.ro[off:])
	return nil
}
