package fsck

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// faults are the blocks that could not be read. A repair may remove a block's owner. Then the block
// is free and bad, and belongs on the bad-range list.
type faults struct {
	mu     sync.Mutex
	blocks map[uint64]struct{} // protected by mu
}

// note records the block of a media error, and returns the error. Safe for concurrent use.
func (f *faults) note(err error) error {
	var m pmem.MediaError
	if errors.As(err, &m) {
		f.mu.Lock()
		if f.blocks == nil {
			f.blocks = map[uint64]struct{}{}
		}
		f.blocks[uint64(m.Off)>>layout.BlockShift] = struct{}{}
		f.mu.Unlock()
	}
	return err
}

// offlineFaults adds to the bad-range list the blocks that could not be read and have no owner
// after the repair. It does nothing for a region in an ordinary file, whose free blocks the next
// mount tries again. A range for which the list has no unused line is found again at the next
// access.
//
// Persistence order, after begin, for each range: store it in an unused line, flush, SFENCE.
func (p *pass) offlineFaults() error {
	if !p.begun || p.r.Durability() != pmem.DurableFlush {
		return nil
	}
	var runs []layout.BadRange
	for _, b := range slices.Sorted(maps.Keys(p.faults.blocks)) {
		switch k := len(runs) - 1; {
		case int64(b)<<layout.BlockShift < p.sb.StaticEnd || b >= p.sb.Blocks() || p.used.has(b) || p.bad.has(b):
		case k >= 0 && runs[k].Block+runs[k].Len == b:
			runs[k].Len++
		default:
			runs = append(runs, layout.BadRange{Block: b, Len: 1})
		}
	}
	for i := int64(0); i < layout.LinesPerBlock && len(runs) > 0; i++ {
		off := p.sb.BadOff + i*layout.LineSize
		var l layout.Line
		var was layout.BadRange
		if p.line(off, &l) != nil {
			continue
		}
		if was.Get(&l); was.Len != 0 {
			continue
		}
		l = layout.Line{}
		runs[0].Put(&l)
		l.Seal(p.seed, off, p.seq.Add(1))
		if err := p.put(off, l[:]); err != nil {
			return err
		}
		p.fence()
		runs = runs[1:]
	}
	return nil
}
