package dirindex

import (
	"hash/maphash"

	"github.com/daxfs/daxfs/fs/layout"
)

var nameSeed = maphash.MakeSeed()

func hashName(name string) uint32 { return uint32(maphash.String(nameSeed, name)) }

func hashBytes(name []byte) uint32 { return uint32(maphash.Bytes(nameSeed, name)) }

// Search looks a name up among the lines of its hash:
//
//	s := x.Search(name)
//	for off, ok := s.Want(); ok; off, ok = s.Want() {
//		... load the line at off, or give up ...
//		s.Show(&line)
//	}
//	entry, found := s.Result()
//
// It is valid as long as the index does not change.
type Search struct {
	x     *Index
	leaf  *leaf // nil: no more candidates
	slot  uint32
	part  int // which line of the candidate is wanted; 0: that of the next candidate
	name  string
	rest  string // of the name, from that line on
	e     Entry
	found bool
}

// Search begins to look a name up.
func (x *Index) Search(name string) Search {
	h := hashName(name)
	return Search{x: x, leaf: x.table.leaf(h), slot: h, name: name, e: Entry{hash: h}}
}

// Want returns the region offset in bytes of the line that the search needs to see next. ok is false
// when the search has ended.
func (s *Search) Want() (off int64, ok bool) {
	if s.found || s.leaf == nil {
		return 0, false
	}
	if s.part == 0 {
		if s.e.Pos, ok = s.leaf.next(s.e.hash, &s.slot); !ok {
			s.leaf = nil
			return 0, false
		}
	}
	return s.x.Off(s.e.Pos) + int64(s.part)*layout.LineSize, true
}

// Show shows the search the line that it wanted.
func (s *Search) Show(l *layout.Line) {
	if s.part == 0 {
		if l.DentryNameLen() != len(s.name) {
			return
		}
		s.e.n, s.e.Ino, s.e.Type = uint8(layout.DentryLines(len(s.name))), l.DentryIno(), l.DentryType()
		s.rest = s.name
	}
	part := l.NamePart(s.part, len(s.name))
	if string(part) != s.rest[:len(part)] {
		s.part = 0
		return
	}
	s.rest = s.rest[len(part):]
	s.part++
	s.found = s.rest == ""
}

// Result returns the entry of the name after the search has ended; false: the directory has no such
// name that can be read.
func (s *Search) Result() (Entry, bool) { return s.e, s.found }
