package pagecache

import "fmt"

// Insert adds an extent. It does not merge it with its neighbours.
//
// Precondition: the extent overlaps no other. The caller holds the inode's lock, here and in all
// methods of this file.
func (s *Space) Insert(e Extent) {
	e.check()
	root := s.root.Load()
	if root == nil {
		s.insertInline(e)
		return
	}
	var p path
	next := p.descend(root, e.Logical)
	if at := p.step[p.leaf]; at.i > 0 {
		clash("insert", at.n.extent(at.i-1), e)
	}
	if next < e.End() {
		misuse("insert", e, overlaps, next)
	}
	s.enter()
	s.insertAt(&p, e)
	s.inline[0].logical.Add(1)
	s.leave()
}

// Update replaces the extent that starts at file block logical by e, which may have another length,
// slot, flags or start.
//
// Precondition: there is such an extent, and e overlaps none of its neighbours.
func (s *Space) Update(logical uint64, e Extent) {
	e.check()
	root := s.root.Load()
	if root == nil {
		s.updateInline(logical, e)
		return
	}
	var p path
	next := p.descend(root, logical)
	at := p.step[p.leaf]
	if at.i == 0 || at.n.key[at.i-1].Load() != logical {
		misuse("update", e, absent, logical)
	}
	if next < e.End() {
		misuse("update", e, overlaps, next)
	}
	if e.Logical < logical {
		if before, ok := s.Prev(logical); ok {
			clash("update", before, e)
		}
	}
	s.enter()
	at.n.setExtent(at.i-1, e)
	if at.i == 1 && e.Logical != logical {
		p.rekey(p.leaf, e.Logical)
	}
	s.leave()
}

// Remove removes the extent that starts at file block logical, and returns it. ok is false if there
// is no such extent.
func (s *Space) Remove(logical uint64) (e Extent, ok bool) {
	root := s.root.Load()
	if root == nil {
		return s.removeInline(logical)
	}
	var p path
	p.descend(root, logical)
	at := p.step[p.leaf]
	if at.i == 0 || at.n.key[at.i-1].Load() != logical {
		return Extent{}, false
	}
	e = at.n.extent(at.i - 1)
	s.enter()
	s.removeAt(&p, p.leaf, at.i-1)
	s.collapse()
	if s.inline[0].logical.Add(^uint64(0)) < inlineExtents {
		s.toInline()
	}
	s.leave()
	return e, true
}

// Reset removes all extents.
func (s *Space) Reset() {
	root := s.root.Load()
	s.enter()
	s.root.Store(nil)
	for i := range s.inline {
		s.inline[i].store(Extent{})
	}
	if root != nil {
		root.releaseAll()
	}
	s.leave()
}

// Messages of misuse.
const (
	overlaps = "overlaps the extent at file block"
	absent   = "no extent starts at file block"
)

// loadInline returns the inline extents and how many there are.
func (s *Space) loadInline() (es [inlineExtents]Extent, n int) {
	for ; n < inlineExtents; n++ {
		if es[n] = s.inline[n].load(); es[n].Len == 0 {
			break
		}
	}
	return es, n
}

func (s *Space) insertInline(e Extent) {
	es, n := s.loadInline()
	at := 0
	for at < n && es[at].Logical <= e.Logical {
		at++
	}
	if at > 0 {
		clash("insert", es[at-1], e)
	}
	if at < n {
		clash("insert", e, es[at])
	}
	s.enter()
	if n < inlineExtents {
		for i := n; i > at; i-- {
			s.inline[i].store(es[i-1])
		}
		s.inline[at].store(e)
	} else {
		s.toTree(es, at, e)
	}
	s.leave()
}

// toTree moves the inline extents into a new leaf, and adds e at index at.
func (s *Space) toTree(es [inlineExtents]Extent, at int, e Extent) {
	leaf := newLeaf()
	for i := range es {
		leaf.setExtent(i, es[i])
	}
	leaf.count.Store(inlineExtents)
	leaf.open(at)
	leaf.setExtent(at, e)
	s.inline[0].logical.Store(inlineExtents + 1)
	s.root.Store(leaf)
}

// toInline moves the extents of a tree of at most inlineExtents back into the Space.
func (s *Space) toInline() {
	leaf := s.root.Load()
	n := leaf.len()
	s.root.Store(nil)
	for i := range s.inline {
		var e Extent
		if i < n {
			e = leaf.extent(i)
		}
		s.inline[i].store(e)
	}
	leaf.release()
}

func (s *Space) updateInline(logical uint64, e Extent) {
	es, n := s.loadInline()
	for i := range n {
		if es[i].Logical != logical {
			continue
		}
		if i > 0 {
			clash("update", es[i-1], e)
		}
		if i+1 < n {
			clash("update", e, es[i+1])
		}
		s.enter()
		s.inline[i].store(e)
		s.leave()
		return
	}
	misuse("update", e, absent, logical)
}

func (s *Space) removeInline(logical uint64) (Extent, bool) {
	es, n := s.loadInline()
	for i := range n {
		if es[i].Logical != logical {
			continue
		}
		s.enter()
		for j := i; j < inlineExtents; j++ {
			var e Extent
			if j+1 < n {
				e = es[j+1]
			}
			s.inline[j].store(e)
		}
		s.leave()
		return es[i], true
	}
	return Extent{}, false
}

// clash panics if extent a overlaps extent b, which starts after a does.
func clash(op string, a, b Extent) {
	if a.End() > b.Logical {
		panic(fmt.Sprintf("pagecache: %s: %v overlaps %v", op, a, b))
	}
}

// misuse reports a broken precondition. It does not return.
//
//go:noinline
func misuse(op string, e Extent, what string, at uint64) {
	panic(fmt.Sprintf("pagecache: %s of %v: %s %d", op, e, what, at))
}
