package pmem

import "runtime/debug"

// The primitives: the only code of the project that stores to a region. They allocate nothing. Each
// first checks its range, then runs under the fault guard. With a recorder, it runs as in record.go
// instead, with the same bodies. A Window has primitives with these bodies, too.

// writable reports whether n bytes at byte offset off may be stored to.
func (r *Region) writable(off, n int64) bool { return r.w != nil && r.in(off, n) }

// Store8 stores v at byte offset off, a multiple of 8, little-endian, with one atomic ordinary
// store. It is durable after Flush and Fence.
func (r *Region) Store8(off int64, v uint64) error {
	if !r.writable(off, 8) || off&7 != 0 {
		return r.refuse("Store8", off, 8, true)
	}
	if r.rec != nil {
		return r.recordStore8(off, v)
	}
	return r.store8(off, v)
}

// Store copies src to byte offset off with ordinary stores, normally whole lines. It stores words
// of 8 bytes that are aligned in the region, in ascending order. They are durable after Flush and
// Fence.
func (r *Region) Store(off int64, src []byte) error {
	n := int64(len(src))
	if !r.writable(off, n) {
		return r.refuse("Store", off, n, true)
	}
	if r.rec != nil {
		return r.recordStore(off, src)
	}
	return r.store(off, src)
}

// NTStore copies src to byte offset off past the processor's caches. It is durable after Fence:
// parts of lines at the ends take ordinary stores and a flush.
func (r *Region) NTStore(off int64, src []byte) error {
	n := int64(len(src))
	if !r.writable(off, n) {
		return r.refuse("NTStore", off, n, true)
	}
	if r.rec != nil {
		return r.recordNTStore(off, src)
	}
	return r.ntStore(off, src)
}

// NTZero stores n zero bytes at byte offset off as NTStore does.
func (r *Region) NTZero(off, n int64) error {
	if !r.writable(off, n) {
		return r.refuse("NTZero", off, n, true)
	}
	if r.rec != nil {
		return r.recordNTZero(off, n)
	}
	return r.ntZero(off, n)
}

// Flush starts writing back every line that the n bytes at byte offset off touch. What was stored
// to these lines is durable after Fence.
func (r *Region) Flush(off, n int64) error {
	if !r.writable(off, n) {
		return r.refuse("Flush", off, n, true)
	}
	if r.rec != nil {
		return r.recordFlush(off, n, false)
	}
	return r.flush(off, n)
}

// Fence waits until everything that this thread flushed or stored past the caches is durable, and
// orders it before every later store.
func (r *Region) Fence() {
	if r.rec != nil {
		r.recordFence()
		return
	}
	fence()
}

// FlushFence is Flush and Fence in one: the goroutine cannot move to another thread between them.
func (r *Region) FlushFence(off, n int64) error {
	if !r.writable(off, n) {
		return r.refuse("FlushFence", off, n, true)
	}
	if r.rec != nil {
		return r.recordFlush(off, n, true)
	}
	return r.flushFence(off, n)
}

// split splits n bytes at byte offset off: head up to the first line boundary, whole lines, tail. A
// range within one line is all head.
func split(off, n int64) (head, lines, tail int64) {
	head = min(-off&(lineSize-1), n)
	lines = (n - head) &^ (lineSize - 1)
	return head, lines, n - head - lines
}

// lines returns every line of the writable mapping that the n bytes at byte offset off touch.
func (m *mapped) lines(off, n int64) []byte {
	if n == 0 {
		return nil
	}
	lo, hi := lineSpan(off, n)
	return m.w[lo:hi]
}

// lineSpan widens a range to whole lines.
func lineSpan(off, n int64) (lo, hi int64) {
	return off &^ (lineSize - 1), (off + n + lineSize - 1) &^ (lineSize - 1)
}

// The guarded bodies. Preconditions: the range is checked, and the mapping is writable.

func (m *mapped) store8(off int64, v uint64) (err error) {
	defer m.guard(debug.SetPanicOnFault(true), &err)
	store8(m.w[off:], v)
	return nil
}

func (m *mapped) store(off int64, src []byte) (err error) {
	defer m.guard(debug.SetPanicOnFault(true), &err)
	dst := m.w[off : off+int64(len(src))]
	for len(src) > chunkSize {
		copyWords(dst, src[:chunkSize])
		dst, src = dst[chunkSize:], src[chunkSize:]
	}
	copyWords(dst, src)
	return nil
}

func (m *mapped) ntStore(off int64, src []byte) (err error) {
	defer m.guard(debug.SetPanicOnFault(true), &err)
	head, lines, tail := split(off, int64(len(src)))
	if head > 0 {
		copyWords(m.w[off:], src[:head])
		flushLines(m.lines(off, head))
		off, src = off+head, src[head:]
	}
	for lines > 0 {
		n := min(lines, chunkSize)
		ntCopyLines(m.w[off:], src[:n])
		off, src, lines = off+n, src[n:], lines-n
	}
	if tail > 0 {
		copyWords(m.w[off:], src)
		flushLines(m.lines(off, tail))
	}
	return nil
}

// zeroLine is the source of the parts of lines at the ends of NTZero.
var zeroLine [lineSize]byte

func (m *mapped) ntZero(off, n int64) (err error) {
	defer m.guard(debug.SetPanicOnFault(true), &err)
	head, lines, tail := split(off, n)
	if head > 0 {
		copyWords(m.w[off:], zeroLine[:head])
		flushLines(m.lines(off, head))
		off += head
	}
	for lines > 0 {
		n := min(lines, chunkSize)
		ntZeroLines(m.w[off : off+n])
		off, lines = off+n, lines-n
	}
	if tail > 0 {
		copyWords(m.w[off:], zeroLine[:tail])
		flushLines(m.lines(off, tail))
	}
	return nil
}

func (m *mapped) flush(off, n int64) (err error) {
	defer m.guard(debug.SetPanicOnFault(true), &err)
	b := m.lines(off, n)
	for len(b) > chunkSize {
		flushLines(b[:chunkSize])
		b = b[chunkSize:]
	}
	flushLines(b)
	return nil
}

// flushFence fences after each chunk: the goroutine may move to another thread between two chunks.
func (m *mapped) flushFence(off, n int64) (err error) {
	defer m.guard(debug.SetPanicOnFault(true), &err)
	b := m.lines(off, n)
	for len(b) > chunkSize {
		flushLinesFence(b[:chunkSize])
		b = b[chunkSize:]
	}
	if len(b) == 0 {
		fence()
		return nil
	}
	flushLinesFence(b)
	return nil
}
