package dirindex

import "github.com/daxfsd/daxfsd/fs/layout"

// lostLine is a line that cannot be read or has a wrong checksum, or the head of an entry with such
// lines. The lost lines count as used, so that their block is kept. They hold no name that can be
// found.
type lostLine struct {
	pos  uint32
	line *layout.Line // content of the line; nil: unreadable
}

// lose records n lost lines of directory block b from line i on. l is the content of the first
// line; nil if it cannot be read.
func (x *Index) lose(b uint32, i, n int, l *layout.Line) {
	lost := lostLine{pos: b*layout.LinesPerBlock + uint32(i)}
	if l != nil {
		c := *l
		lost.line = &c
	}
	x.lost = append(x.lost, lost)
	x.used[b] |= lineMask(i, n)
	if x.lostLines == nil {
		x.lostLines = map[uint32]uint64{}
	}
	x.lostLines[b] |= lineMask(i, n)
}

// Lost returns the number of places where damage has lost names.
func (x *Index) Lost() int { return len(x.lost) }

// LostLike returns the region offset in bytes of a damaged line that may have held a name; ok is
// false if there is none. It checks all damaged lines, so it takes time proportional to Lost.
func (x *Index) LostLike(name string) (off int64, ok bool) {
	for i := range x.lost {
		if x.lost[i].mayHold(name) {
			return x.Off(x.lost[i].pos), true
		}
	}
	return 0, false
}

// mayHold reports whether the line may have held a name: at least half of the first bytes (at most
// layout.HeadName) are equal. A line that cannot be read may have held any name.
func (l *lostLine) mayHold(name string) bool {
	if l.line == nil {
		return true
	}
	part, same := l.line.NamePart(0, layout.HeadName), 0
	n := min(len(name), layout.HeadName)
	for i := range n {
		if part[i] == name[i] {
			same++
		}
	}
	return 2*same >= n
}
