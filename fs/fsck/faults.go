package fsck

import (
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// faults are the blocks that could not be read. A repair may take away what named one of them: then
// it is free memory that is bad, and belongs on the bad-range list.
type faults struct {
	mu     sync.Mutex
	blocks map[uint64]struct{} // protected by mu
}

// note remembers where an access faulted, and returns its error. Safe for concurrent use.
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

// offlineFaults adds to the bad-range list what could not be read and belongs to nobody after the
// repair. In a region in an ordinary file such memory has nothing to lose: the next mount tries it
// again. What finds no line in the list is known when somebody meets it again.
//
// Persistence order, behind begin, for each range: store it in an unused line, flush, SFENCE.
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
