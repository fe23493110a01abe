package dirindex

import (
	"hash/maphash"

	"github.com/daxfsd/daxfsd/fs/layout"
)

var nameSeed = maphash.MakeSeed()

func hashName(name string) uint32 { return uint32(maphash.String(nameSeed, name)) }

func hashBytes(name []byte) uint32 { return uint32(maphash.Bytes(nameSeed, name)) }

// Search looks up a name among the lines with the same hash. The caller loads the lines that the
// search asks for:
//
//	var s Search
//	for off, ok := s.Start(x, name); ok; {
//		... load the line at off, or give up ...
//		off, ok = s.Show(&line)
//	}
//	entry, found := s.Result()
//
// The search and its result are valid until the index changes.
type Search struct {
	x    *Index
	leaf *leaf // nil: the directory is empty
	name string
	e    Entry  // the current candidate, or the result
	slot uint32 // slot of the next candidate, see leaf.next
	done int    // bytes of the name that match the candidate so far
	line int    // index of the candidate's line that is needed next; all lines before it match
}

// Start begins the lookup of a name, and returns the region offset in bytes of the first line that
// the search needs. ok is false if the search has ended.
func (s *Search) Start(x *Index, name string) (off int64, ok bool) {
	h := hashName(name)
	s.x, s.leaf, s.name = x, x.table.leaf(h), name
	s.e.hash, s.slot = h, h
	return s.next()
}

// next moves to the next candidate, and returns the region offset in bytes of its first line. ok is
// false if there is none.
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

// Show gives the search the line that it asked for, and returns the region offset in bytes of the
// next one. ok is false if the search has ended.
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

// Result returns the entry of the name after the search has ended. ok is false if the directory has
// no readable entry of that name.
func (s *Search) Result() (Entry, bool) { return s.e, s.line > 0 && s.done == len(s.name) }
