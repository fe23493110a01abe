package badmem

import (
	"runtime"
	"slices"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// tornLine stands for a torn line of the list on media, which has to be stored anew as an unused
// line.
var tornLine = layout.BadRange{Block: 1}

// readLines reads the list on media. A line with a wrong checksum was torn while it was written, so
// its range is not relied on; it is returned as tornLine. So is a line whose range is outside the
// filesystem.
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

// rangesOf returns the ranges of the list on media, sorted and not adjacent.
func rangesOf(lines []layout.BadRange) (list []Range) {
	for _, b := range lines {
		list = append(list, Range{b.Block, b.Len})
	}
	return join(nil, list...)
}

// blocksAround returns the blocks of the filesystem that contain the bytes of ranges.
func blocksAround(bytes []pmem.Range, sb *layout.Superblock) (list []Range) {
	for _, b := range bytes {
		lo, hi := uint64(b.Off)>>layout.BlockShift, min(uint64(b.Off+b.Len+layout.BlockSize-1)>>layout.BlockShift, sb.Blocks())
		if lo < hi {
			list = append(list, Range{lo, hi - lo})
		}
	}
	return list
}

// Known returns the bad ranges of a filesystem that is not mounted: those of the list on media and
// those of the kernel's list. They are whole blocks, sorted, in bytes. If the kernel's list cannot
// be read, Known returns the error together with the ranges on media.
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

// Load reads the list on media and the kernel's list. It is called before any other part of the
// region is used. If the kernel's list cannot be read, Load only warns. If memory of the fixed area
// is bad, Load returns a pmem.MediaError.
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
		// The first superblock is exempt: it has a copy, and has been read already.
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

// StartSaving saves the list to media, now and after each durable addition. stamp returns the
// sequence for the lines; if ok is false, nothing may be stored any more.
//
// Persistence order: as saveLocked.
func (l *List) StartSaving(stamp func() (seq uint64, ok bool)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stamp = stamp
	return l.saveLocked()
}

// saveLocked saves the durable ranges to the list on media. A line is never overwritten by another
// range, because a torn store would lose the old range. A range for which no line is left stays
// known until the unmount. Called with mu held.
//
// Persistence order:
//  1. torn lines: store an unused line, flush
//
// Then for each range that has no line:
//  1. store it in an unused line, flush; SFENCE
//  2. lines of ranges that are part of it: store an unused line, flush
//
// Finally SFENCE if a line was made unused, and write the block back (pmem.Region.Sync).
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
		if n == 0 || n == 1 && len(parts) == 0 { // the last unused line is for ranges that join others
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
		l.warn("the bad-range list is full: further bad ranges are forgotten at the unmount, unless the kernel lists them")
	}
	l.unsaved.Store(full || l.volatile)
	return nil
}

// placeForLocked returns the index of an unused line for a range, the number of unused lines, and
// the indexes of the lines whose ranges are part of it. Called with mu held.
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

// putLocked stores a range in line i of the list on media, and flushes the line. Called with mu
// held, and with the goroutine locked to its OS thread.
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
