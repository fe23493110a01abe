package fsck

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// image is the region as a repair sees and changes it. A dry image keeps all stores beside the
// region, so that the repair finds the same problems without changing anything. That takes 64 bytes
// for each changed line, and about 100 bytes for each block with changes.
//
// Loads are safe for concurrent use, even while one goroutine stores elsewhere.
type image struct {
	r   *pmem.Region
	dry bool

	patched atomic.Bool       // there are patches; while it is false, loads take no lock
	mu      sync.RWMutex      // a leaf of the lock order
	patches map[uint64]*patch // by block; protected by mu
}

// patch is the changed lines of a block.
type patch struct {
	has   uint64        // bit i: line i of the block was changed
	lines []layout.Line // the changed lines, in order
}

// load reads len(dst) bytes at region offset off.
func (m *image) load(off int64, dst []byte) error {
	if err := m.r.Load(off, dst); err != nil {
		return err
	}
	m.overlay(off, dst)
	return nil
}

// loadLine reads the line at region offset off, without verifying its checksum.
func (m *image) loadLine(off int64, l *layout.Line) error {
	if err := m.r.LoadLine(off, (*[layout.LineSize]byte)(l)); err != nil {
		return err
	}
	m.overlay(off, l[:])
	return nil
}

// overlay copies the changed lines over dst, which holds the region's bytes at offset off.
func (m *image) overlay(off int64, dst []byte) {
	if !m.patched.Load() {
		return
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	end := off + int64(len(dst))
	for b := off >> layout.BlockShift; b<<layout.BlockShift < end; b++ {
		p := m.patches[uint64(b)]
		if p == nil {
			continue
		}
		for i, has := 0, p.has; has != 0; i, has = i+1, has&(has-1) {
			at := b<<layout.BlockShift + int64(bits.TrailingZeros64(has))*layout.LineSize
			if lo, hi := max(at, off), min(at+layout.LineSize, end); lo < hi {
				copy(dst[lo-off:hi-off], p.lines[i][lo-at:])
			}
		}
	}
}

// put stores b at region offset off and flushes it.
func (m *image) put(off int64, b []byte) error {
	return m.store(off, b, func() error {
		if err := m.r.Store(off, b); err != nil {
			return err
		}
		return m.r.Flush(off, int64(len(b)))
	})
}

// ntStore stores b at region offset off with non-temporal stores.
func (m *image) ntStore(off int64, b []byte) error {
	return m.store(off, b, func() error { return m.r.NTStore(off, b) })
}

// store changes the bytes at off to b: with do, or beside the region if the image is dry. It first
// loads the affected lines, so that a dry run gets the same media errors as a repair.
func (m *image) store(off int64, b []byte, do func() error) error {
	lo, end := off&^(layout.LineSize-1), off+int64(len(b))
	was := make([]byte, (end+layout.LineSize-1)&^(layout.LineSize-1)-lo)
	if err := m.load(lo, was); err != nil {
		return err
	}
	if !m.dry {
		return do()
	}
	for at := lo; at < end; at += layout.LineSize {
		old := layout.Line(was[at-lo:])
		l := old
		from, to := max(at, off), min(at+layout.LineSize, end)
		copy(l[from-at:], b[from-off:to-off])
		if l != old {
			m.keep(at, &l)
		}
	}
	return nil
}

// keep makes l the line at off, beside the region.
func (m *image) keep(off int64, l *layout.Line) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.patches == nil {
		m.patches = map[uint64]*patch{}
		m.patched.Store(true)
	}
	b, bit := uint64(off)>>layout.BlockShift, uint64(1)<<(off%layout.BlockSize/layout.LineSize)
	p := m.patches[b]
	if p == nil {
		p = new(patch)
		m.patches[b] = p
	}
	i := bits.OnesCount64(p.has & (bit - 1))
	if p.has&bit == 0 {
		p.has |= bit
		p.lines = slices.Insert(p.lines, i, layout.Line{})
	}
	p.lines[i] = *l
}

// fence makes this thread's stores durable.
func (m *image) fence() {
	if !m.dry {
		m.r.Fence()
	}
}
