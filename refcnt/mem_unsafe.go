//go:build !race

package refcnt

import (
	"errors"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// memory is the table's address space, outside Go's heap.
type memory struct {
	pairs []byte
	words []byte
}

// reserve maps the table. Nothing is resident yet, and memory that is not resident reads as zeros.
// No swap is reserved: the words would take 2 GiB per TiB of region, but only if all of it were in
// use in 4 KiB folios.
func (t *Table) reserve(pairs uint64) (err error) {
	if t.mem.pairs, err = anonymous(pairs * pairBytes); err != nil {
		return err
	}
	if t.mem.words, err = anonymous(pairs << t.pmd * wordBytes); err != nil {
		return errors.Join(err, t.mem.release())
	}
	// Touching one word must not make the words of a whole GiB resident. EINVAL comes from a kernel
	// without transparent huge pages.
	if err = unix.Madvise(t.mem.words, unix.MADV_NOHUGEPAGE); err != nil && err != unix.EINVAL {
		return errors.Join(err, t.mem.release())
	}
	t.pairs = unsafe.Slice((*pair)(unsafe.Pointer(unsafe.SliceData(t.mem.pairs))), pairs)
	t.words = unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(t.mem.words))), pairs<<t.pmd)
	return nil
}

func anonymous(bytes uint64) ([]byte, error) {
	return unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
}

// discard gives back the memory of the words of pair p.
//
// Precondition: all of them are zero, and no thread is about to write one.
func (t *Table) discard(p uint64) {
	if t.pmd != pageOrder {
		return
	}
	const page = wordBytes << pageOrder
	// If the kernel refuses, the words stay resident, and are zero all the same.
	_ = unix.Madvise(t.mem.words[p*page:(p+1)*page], unix.MADV_DONTNEED)
}

// fill sets the words of n blocks to w. Precondition: no other thread uses them.
func (t *Table) fill(block, n, w uint64) {
	words := unsafe.Slice((*uint64)(unsafe.Pointer(&t.words[block])), n)
	for i := range words {
		words[i] = w // not atomic: much faster for the millions that a mount may restore
	}
}

func (m *memory) release() error {
	var first error
	for _, b := range []*[]byte{&m.pairs, &m.words} {
		if *b == nil {
			continue
		}
		if err := unix.Munmap(*b); err != nil && first == nil {
			first = err
		}
		*b = nil
	}
	return first
}

var _ = [1]struct{}{}[unsafe.Sizeof(pair{})-pairBytes] // a pair is 16 bytes
