package pmem

import (
	"encoding/binary"
	"runtime/debug"
)

// The primitives of a Window. Offsets are bytes in the window. They allocate nothing, and turn a
// fault into an error, as those of a Region do; there is no recorder.

// refuse returns the error of a primitive that may not run.
func (w *Window) refuse(op string, at, n int64, store bool) error {
	if store && w.w == nil && w.in(at, n) {
		return ErrReadOnly
	}
	return RangeError{Op: op, Off: at, N: n, Size: int64(len(w.ro))}
}

// Bytes returns the n bytes at offset at. Accesses to the slice are not guarded. It panics if the
// range is not in the window.
func (w *Window) Bytes(at, n int64) []byte {
	if !w.in(at, n) {
		panic(w.refuse("Bytes", at, n, false))
	}
	return w.ro[at : at+n : at+n]
}

// Load copies len(dst) bytes at offset at out of the window. After an error the content of dst is
// undefined.
func (w *Window) Load(at int64, dst []byte) error {
	if n := int64(len(dst)); !w.in(at, n) {
		return w.refuse("Load", at, n, false)
	}
	return w.load(at, dst)
}

// prefetched is how many lines Prefetch loads at most: then the processor sees what is going on.
const prefetched = 8

// Prefetch begins loading n bytes at offset at into the caches. It is a hint, and the only method
// that may be called while or after the window is closed.
func (w *Window) Prefetch(at, n int64) {
	prefetch(w.robase+uintptr(at), uintptr(max(1, min((n+lineSize-1)/lineSize, prefetched))))
}

// LoadPair loads two adjacent little-endian numbers of 8 bytes at offset at, a multiple of 8. Each
// is loaded at once, the first one first. What the program does next is not done before.
func (w *Window) LoadPair(at int64) (a, b uint64, err error) {
	if !w.in(at, 16) || at&7 != 0 {
		return 0, 0, w.refuse("LoadPair", at, 16, false)
	}
	defer w.guard(debug.SetPanicOnFault(true), &err)
	return littleEndian(load8(w.ro[at:])), littleEndian(load8(w.ro[at+8:])), nil
}

// LoadWhile is Load, and reports whether the number at offset seq, a multiple of 8, still was v
// when all bytes had been loaded.
func (w *Window) LoadWhile(seq int64, v uint64, at int64, dst []byte) (same bool, err error) {
	if n := int64(len(dst)); !w.in(at, n) || !w.in(seq, 8) || seq&7 != 0 {
		return false, w.refuse("LoadWhile", at, n, false)
	}
	defer w.guard(debug.SetPanicOnFault(true), &err)
	Copy(dst, w.ro[at:at+int64(len(dst))])
	loadBarrier()
	return littleEndian(load8(w.ro[seq:])) == v, nil
}

// LoadBelow copies to dst what the file holds from byte offset from on, which is at offset at of
// the window. At offset slot, a multiple of 8, are two numbers: a generation, and the size of the
// file, which cuts dst to n bytes. same reports whether the generation was v before and after that.
func (w *Window) LoadBelow(slot int64, v uint64, from, at int64, dst []byte) (n int, same bool, err error) {
	if n := int64(len(dst)); !w.in(at, n) || !w.in(slot, 16) || slot&7 != 0 {
		return 0, false, w.refuse("LoadBelow", at, n, false)
	}
	defer w.guard(debug.SetPanicOnFault(true), &err)
	if littleEndian(load8(w.ro[slot:])) != v {
		return 0, false, nil
	}
	size := int64(littleEndian(load8(w.ro[slot+8:])))
	n = int(min(int64(len(dst)), max(0, size-from)))
	Copy(dst[:n], w.ro[at:at+int64(n)])
	loadBarrier()
	return n, littleEndian(load8(w.ro[slot:])) == v, nil
}

// NTStore copies src to offset at past the caches. It is durable after Fence, as Region.NTStore.
func (w *Window) NTStore(at int64, src []byte) error {
	if n := int64(len(src)); w.w == nil || !w.in(at, n) {
		return w.refuse("NTStore", at, n, true)
	}
	return w.ntStore(at, src)
}

// FlushFence writes back every line that n bytes at offset at touch, and returns when they are
// durable.
func (w *Window) FlushFence(at, n int64) error {
	if w.w == nil || !w.in(at, n) {
		return w.refuse("FlushFence", at, n, true)
	}
	return w.flushFence(at, n)
}

// Fence waits until everything that this thread stored past the caches is durable.
func (w *Window) Fence() { fence() }

// littleEndian returns the number whose little-endian encoding is v in this machine's memory.
func littleEndian(v uint64) uint64 {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], v)
	return binary.LittleEndian.Uint64(b[:])
}
