package lease

import (
	"fmt"
	"slices"

	"github.com/daxfsd/daxfsd/direct/protocol"
)

// slots are the lines of the region in which programs see that the layout of a file has changed. A
// generation is never used twice, so a program that looks into the slot of what has become another
// file sees that its grant is stale.
type slots struct {
	gen   uint64 // the last generation that was given out; even
	fresh int    // slots from here on were never used
	free  []int
}

// maxGeneration is more than what a filesystem comes to. A slot with a larger one was not written
// by a daemon.
const maxGeneration = 1 << 62

func (t *Table) slotOff(i int) int64 { return t.o.SlotOff + int64(i)*protocol.SlotSize }

// startSlotsLocked makes the generation of each slot that was used new. Called with mu held.
func (t *Table) startSlotsLocked() error {
	s := &t.slots
	var used []int
	for i := range t.o.Slots {
		gen, err := t.o.Load(t.slotOff(i) + protocol.SlotGeneration)
		if err != nil {
			return fmt.Errorf("reading slot %d: %w", i, err)
		}
		if gen == 0 {
			continue
		}
		used = append(used, i)
		if gen < maxGeneration {
			s.gen = max(s.gen, gen&^1)
		}
	}
	s.gen += 2
	for _, i := range used {
		if err := t.o.Store(t.slotOff(i)+protocol.SlotGeneration, s.gen); err != nil {
			return fmt.Errorf("writing slot %d: %w", i, err)
		}
	}
	return nil
}

// takeSlotLocked returns a file with a slot that has a new generation, and the file's size in
// bytes. ErrBudget. Called with mu held.
func (t *Table) takeSlotLocked(size uint64) (*file, error) {
	s := &t.slots
	f := &file{slot: s.fresh}
	if n := len(s.free); n > 0 {
		f.slot = s.free[n-1]
	} else if s.fresh == t.o.Slots {
		return nil, fmt.Errorf("%w: all %d slots are in use", ErrBudget, t.o.Slots)
	}
	if err := t.o.Store(t.slotOff(f.slot)+protocol.SlotFileSize, size); err != nil {
		return nil, err
	}
	if err := t.newGenerationLocked(f); err != nil {
		return nil, err
	}
	if n := len(s.free); n > 0 {
		s.free = s.free[:n-1]
	} else {
		s.fresh++
	}
	return f, nil
}

// newGenerationLocked gives a file's slot a new, even generation. Called with mu held.
func (t *Table) newGenerationLocked(f *file) error {
	t.slots.gen += 2
	f.gen = t.slots.gen
	return t.o.Store(t.slotOff(f.slot)+protocol.SlotGeneration, f.gen)
}

// dropSlotLocked takes a file without grants out of the table, unless it is changing. Called with
// mu held.
func (t *Table) dropSlotLocked(ino uint64, f *file) {
	if len(f.grants) == 0 && !f.changing {
		delete(t.files, ino)
		t.slots.free = append(t.slots.free, f.slot)
	}
}

// BeginChange is called before file blocks [lo, hi) get another block of the region, or none, or
// one whose content is written or unwritten now and was not before. If a program may map them it
// makes the generation odd, and the caller calls EndChange when the change has been made or given
// up.
func (t *Table) BeginChange(ino, lo, hi uint64) (begun bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[ino]
	if f == nil {
		return false, nil
	}
	for _, g := range f.grants {
		if g.Lo < hi && lo < g.Hi {
			g.stale, begun = true, true
		}
	}
	if !begun {
		return false, nil
	}
	f.changing = true
	return true, t.o.Store(t.slotOff(f.slot)+protocol.SlotGeneration, f.gen|1)
}

// EndChange ends a change that BeginChange has begun: the generation is new.
func (t *Table) EndChange(ino uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[ino]
	f.changing = false
	err := t.newGenerationLocked(f)
	for _, g := range f.grants { // programs compare with the generation of the slot, whatever changed
		g.stale = true
	}
	t.dropSlotLocked(ino, f)
	return err
}

// Stale makes all grants of a file stale, although its layout stays: what a program stores through
// one would have to change the file first.
func (t *Table) Stale(ino uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[ino]
	if f == nil || f.changing { // EndChange will do it
		return nil
	}
	for _, g := range f.grants {
		g.stale = true
	}
	return t.newGenerationLocked(f)
}

// Resize tells the programs that map a file its new size in bytes.
func (t *Table) Resize(ino, size uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[ino]
	if f == nil {
		return nil
	}
	return t.o.Store(t.slotOff(f.slot)+protocol.SlotFileSize, size)
}

// Drop is called when an inode is freed. Its grants are stale for good, and keep their blocks.
func (t *Table) Drop(ino uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[ino]
	if f == nil {
		return nil
	}
	for _, g := range f.grants {
		g.Ino, g.stale = 0, true
	}
	f.grants, f.changing = nil, false
	err := t.newGenerationLocked(f)
	t.dropSlotLocked(ino, f)
	return err
}

// OfFile returns how many grants of a file have not ended, and how many of them are writable.
func (t *Table) OfFile(ino uint64) (all, writable int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.files[ino]; f != nil {
		for _, g := range f.grants {
			if g.state > confirmed {
				continue
			}
			all++
			if g.Writable {
				writable++
			}
		}
	}
	return all, writable
}

// EndingOf reports whether there is a grant of a file whose lease has ended, and whose blocks are
// still kept.
func (t *Table) EndingOf(ino uint64) bool {
	if !t.Ending() {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.files[ino]
	return f != nil && slices.ContainsFunc(f.grants, func(g *Grant) bool { return g.state == ended })
}
