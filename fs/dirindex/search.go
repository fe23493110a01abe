package dirindex

import (
	"hash/maphash"

	"github.com/daxfsd/daxfsd/fs/layout"
)

var nameSeed = maphash.MakeSeed()

func hashName(name string) uint32 { return uint32(maphash.String(nameSeed, name)) }

func hashBytes(name []byte) uint32 { return uint32(maphash.Bytes(nameSeed, name)) }

// Search looks a name up among the lines of its hash. The caller loads the lines that it asks for:
//
//	var s Search
//	for off, ok := s.Start(x, name); ok; {
//		... load the line at off, or give up ...
//		off, ok = s.Show(&line)
//	}
//	entry, found := s.Result()
//
// It is valid as long as the index does not change.
type Search struct {
	x    *Index
	leaf *leaf // nil: the directory is empty
	name string
	e    Entry  // the candidate, or what was found
	slot uint32 // the next candidate's, see leaf.next
	done int    // bytes of the name that are the candidate's
	line int    // which of the candidate's lines is wanted; those before it match
}

// Start begins to look a name up, and returns the region offset in bytes of the first line that the
// search needs to see. ok is false if it has ended.
func (s *Search) Start(x *Index, name string) (off int64, ok bool) {
	h := hashName(name)
	s.x, s.leaf, s.name = x, x.table.leaf(h), name
	s.e.hash, s.slot = h, h
	return s.next()
}

// next turns to the next candidate.
func (s *Search) next() (off int64, ok bool) {
	s.done, s.line = 0, 0
	if s.leaf == nil {
		return 0, false
	}
	if s.e.Pos, ok = s.leaf.next(s.e.hash, &s.slot); !ok {
		return 0, false
	}
	return s.x.Off(s.e.Pos), true
}

// Show shows the search the line that it asked for, and returns the offset of the next one.
func (s *Search) Show(l *layout.Line) (off int64, ok bool) {
	n := len(s.name)
	if s.line == 0 {
		if l.DentryNameLen() != n {
			return s.next()
		}
		s.e.n, s.e.Ino, s.e.Type = uint8(layout.DentryLines(n)), l.DentryIno(), l.DentryType()
	}
	part := l.NamePart(s.line, n)
	if string(part) != s.name[s.done:s.done+len(part)] {
		return s.next()
	}
	s.line++
	if s.done += len(part); s.done == n {
		return 0, false
	}
	return s.x.Off(s.e.Pos) + int64(s.line)*layout.LineSize, true
}

// Result returns the entry of the name after the search has ended; false: the directory has no such
// name that can be read.
func (s *Search) Result() (Entry, bool) { return s.e, s.line > 0 && s.done == len(s.name) }
