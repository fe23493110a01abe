package badmem

import (
	"runtime"
	"slices"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// tornLine is a line of the list on media that has to be made an unused one.
var tornLine = layout.BadRange{Block: 1}

// readLines reads the list on media. A line with a wrong checksum was torn when it was written;
// nobody has relied on it yet, and it is tornLine.
func readLines(r *pmem.Region, sb *layout.Superblock) (lines [layout.LinesPerBlock]layout.BadRange, err error) {
	for i := range lines {
		var l layout.Line
		off := sb.BadOff + int64(i)*layout.LineSize
		if err := r.LoadLine(off, (*[layout.LineSize]byte)(&l)); err != nil {
			return lines, err
		}
		b := &lines[i]
		if b.Get(&l); !l.Valid(layout.Seed(sb.UUID), off) || b.Block >= sb.Blocks() || b.Len > sb.Blocks()-b.Block {
			*b = tornLine
		}
	}
	return lines, nil
}

// rangesOf are the ranges of the list on media, in order.
func rangesOf(lines []layout.BadRange) (list []Range) {
	for _, b := range lines {
		list = append(list, Range{b.Block, b.Len})
	}
	return join(nil, list...)
}

// blocksAround are the blocks that hold the bytes of ranges, as far as the filesystem has them.
func blocksAround(bytes []pmem.Range, sb *layout.Superblock) (list []Range) {
	for _, b := range bytes {
		lo, hi := uint64(b.Off)>>layout.BlockShift, min(uint64(b.Off+b.Len+layout.BlockSize-1)>>layout.BlockShift, sb.Blocks())
		if lo < hi {
			list = append(list, Range{lo, hi - lo})
		}
	}
	return list
}

// Known is what the list on media of a filesystem that is not mounted and the kernel's list have,
// in order: whole blocks, in bytes. An error of the kernel's list comes with what the other one
// has.
func Known(r *pmem.Region, sb *layout.Superblock) (out []pmem.Range, err error) {
	lines, err := readLines(r, sb)
	if err != nil {
		return nil, err
	}
	kernel, err := r.BadRanges()
	for _, b := range join(rangesOf(lines[:]), blocksAround(kernel, sb)...) {
		out = append(out, pmem.Range{Off: int64(b.Block) << layout.BlockShift, Len: int64(b.N) << layout.BlockShift})
	}
	return out, err
}

// Load finds out what is bad, by the list on media and the kernel's list, before anything else of
// the region is used. If the kernel's list cannot be read that is a warning. Bad memory in the
// fixed area is a pmem.MediaError.
func (l *List) Load() (err error) {
	if l.lines, err = readLines(l.r, l.sb); err != nil {
		return err
	}
	kernel, err := l.r.BadRanges()
	if err != nil {
		l.warn("the kernel's list of bad memory cannot be read: %v", err)
	}
	found := blocksAround(kernel, l.sb)
	for _, b := range found {
		// The first superblock has a second, and is read before this.
		if at := max(int64(b.Block)<<layout.BlockShift, l.sb.BadOff); at < l.sb.StaticEnd && at < int64(b.end())<<layout.BlockShift {
			return l.errorAt(uint64(at) >> layout.BlockShift)
		}
	}
	if list := join(rangesOf(l.lines[:]), found...); len(list) > 0 {
		l.ranges.Store(&list)
		l.durable = list
	}
	return nil
}

// StartSaving saves the list to media, now and with each durable addition. stamp is the sequence
// for its lines; not ok: nothing may be stored any more.
//
// Persistence order: as save.
func (l *List) StartSaving(stamp func() (seq uint64, ok bool)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stamp = stamp
	return l.saveLocked()
}

// saveLocked makes the list on media say what is durably known. A line is never overwritten by
// another range: torn, it would be lost. A range for which there is no line stays known until the
// unmount. Called with mu held.
//
// Persistence order:
//  1. torn lines: store an unused line, flush
//
// Then for each range that has no line:
//  1. store it in an unused one, flush; SFENCE
//  2. lines of ranges that are part of it: store an unused line, flush
//
// SFENCE in the end.
func (l *List) saveLocked() error {
	seq, ok := l.stamp()
	if !ok {
		l.unsaved.Store(true)
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	full, cleared := false, false
	for i, line := range l.lines {
		if line == tornLine {
			if err := l.putLocked(i, layout.BadRange{}, seq); err != nil {
				return err
			}
			cleared = true
		}
	}
	for _, known := range l.durable {
		want := layout.BadRange{Block: known.Block, Len: known.N}
		if slices.Contains(l.lines[:], want) {
			continue
		}
		unused, n, parts := l.placeForLocked(want)
		if n == 0 || n == 1 && len(parts) == 0 { // the last one is for ranges that join others
			full = true
			continue
		}
		if err := l.putLocked(unused, want, seq); err != nil {
			return err
		}
		l.r.Fence()
		for _, i := range parts {
			if err := l.putLocked(i, layout.BadRange{}, seq); err != nil {
				return err
			}
			cleared = true
		}
	}
	if cleared {
		l.r.Fence()
	}
	if err := l.r.Sync(l.sb.BadOff, layout.BlockSize); err != nil {
		return err
	}
	if full && !l.unsaved.Load() {
		l.warn("the bad-range list is full: what else is bad is forgotten at the unmount, unless the kernel knows it")
	}
	l.unsaved.Store(full || l.volatile)
	return nil
}

// placeForLocked finds an unused line of n for a range, and the lines of ranges that are part of
// it. Called with mu held.
func (l *List) placeForLocked(want layout.BadRange) (unused, n int, parts []int) {
	for i, b := range l.lines {
		switch {
		case b.Len == 0:
			unused, n = i, n+1
		case want.Block <= b.Block && b.Block+b.Len <= want.Block+want.Len:
			parts = append(parts, i)
		}
	}
	return unused, n, parts
}

// putLocked stores a range in line i of the list on media, and flushes it. Called with mu held, on
// one thread.
func (l *List) putLocked(i int, b layout.BadRange, seq uint64) error {
	var line layout.Line
	b.Put(&line)
	off := l.sb.BadOff + int64(i)*layout.LineSize
	line.Seal(layout.Seed(l.sb.UUID), off, seq)
	if err := l.r.Store(off, line[:]); err != nil {
		return err
	}
	l.lines[i] = b
	return l.r.Flush(off, layout.LineSize)
}
