package pmem

import (
	"fmt"
	"runtime/debug"
)

// chunkSize is how many bytes one uninterruptible copy handles at most. Assembly cannot be
// preempted, and the garbage collector would wait for it.
const chunkSize = 256 << 10

// Bytes returns the n bytes of the read-only mapping at byte offset off. It allocates nothing. A
// load from the slice is not guarded: on poisoned or truncated memory it kills the process. A store
// to the slice faults. Bytes panics if the range is not in the region.
func (r *Region) Bytes(off, n int64) []byte {
	if !r.in(off, n) {
		panic(fmt.Sprintf("pmem: Bytes of %d bytes at offset %d: %s has %d", n, off, r.path, r.size))
	}
	return r.ro[off : off+n : off+n]
}

// Load copies len(dst) bytes at byte offset off out of the region. After ErrMedia, the content of
// dst is undefined.
func (r *Region) Load(off int64, dst []byte) error {
	n := int64(len(dst))
	if !r.in(off, n) {
		return r.refuse("Load", off, n, false)
	}
	return r.load(off, dst)
}

// load is the guarded body of Load.
func (m *mapped) load(off int64, dst []byte) (err error) {
	defer m.guard(debug.SetPanicOnFault(true), &err)
	Copy(dst, m.ro[off:off+int64(len(dst))])
	return nil
}

// Copy is copy(dst, src) for memory of any length. It copies in pieces, so that the garbage
// collector can stop it in between. The pieces are shorter than 1 MiB, so that a copy does not
// bypass the caches, where the caller reads the bytes next. A fault is not guarded.
func Copy(dst, src []byte) (n int) {
	for src = src[:min(len(src), len(dst))]; n < len(src); {
		n += copy(dst[n:], src[n:min(len(src), n+chunkSize)])
	}
	return n
}

// Gather copies slices that Bytes returned, or of other memory, to dst one after the other, as far
// as they fit. It returns how many bytes it copied. After ErrMedia, the content of dst is
// undefined.
func (r *Region) Gather(dst []byte, src [][]byte) (n int, err error) {
	defer r.guard(debug.SetPanicOnFault(true), &err)
	for _, s := range src {
		n += Copy(dst[n:], s)
	}
	return n, nil
}

// LoadLine copies the 64 bytes at byte offset off, normally one line, out of the region.
func (r *Region) LoadLine(off int64, dst *[64]byte) (err error) {
	if !r.in(off, lineSize) {
		return r.refuse("LoadLine", off, lineSize, false)
	}
	defer r.guard(debug.SetPanicOnFault(true), &err)
	*dst = [lineSize]byte(r.ro[off:])
	return nil
}
