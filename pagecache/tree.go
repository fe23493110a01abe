package pagecache

// This file changes the tree. All functions are called by the one writer, in the changing state of
// the Space's sequence.

const (
	// maxDepth bounds the levels. Nodes that are a quarter full hold 9^12 extents at that depth.
	maxDepth = 12
	// A node of fewer than sparse entries is joined with a neighbour if both together have at most
	// dense.
	sparse = fan / 4
	dense  = fan * 3 / 4
)

// path is the way from the root to a leaf.
type path struct {
	leaf int // index of the leaf in step
	step [maxDepth]step
}

// step is a node of a path and an index: in an inner node, of the entry that the path takes; in the
// leaf, of the position after the last extent at or before the block that is searched.
type step struct {
	n *node
	i int
}

// descend fills the path to the leaf for file block logical, and returns where the first extent
// after that block starts.
func (p *path) descend(root *node, logical uint64) (next uint64) {
	next = None
	for d, n := 0, root; ; d++ {
		count := n.len()
		i := n.rank(count, logical)
		if i < count {
			next = n.key[i].Load()
		}
		if n.kids == nil {
			p.step[d] = step{n, i}
			p.leaf = d
			return next
		}
		i = max(i-1, 0)
		p.step[d] = step{n, i}
		n = n.kids[i].Load()
	}
}

// rekey sets the first key of the node at level d in the nodes above it.
func (p *path) rekey(d int, key uint64) {
	for d--; d >= 0; d-- {
		at := p.step[d]
		at.n.key[at.i].Store(key)
		if at.i != 0 {
			return
		}
	}
}

// insertAt adds an extent at the end of the path, which descend filled for e.Logical.
func (s *Space) insertAt(p *path, e Extent) {
	at := p.step[p.leaf]
	if at.i == 0 {
		p.rekey(p.leaf, e.Logical)
	}
	n, i := s.room(p, p.leaf, at.i, e.Logical)
	n.open(i)
	n.setExtent(i, e)
}

// room returns the node and the position for a new entry that belongs at position i of level d. It
// splits a full node: in the middle, or at its end if the entry comes after all others, as in a
// file that grows.
func (s *Space) room(p *path, d, i int, key uint64) (*node, int) {
	n := p.step[d].n
	if n.len() < fan {
		return n, i
	}
	right, mid := n.like(), fan/2
	if i == fan {
		mid = fan
	}
	n.moveTo(right, mid)
	from := key
	if mid < fan {
		from = right.key[0].Load()
	}
	if d > 0 {
		up, at := s.room(p, d-1, p.step[d-1].i+1, from)
		up.open(at)
		up.setKid(at, from, right)
	} else {
		root := newInner()
		root.setKid(0, min(key, n.key[0].Load()), n)
		root.setKid(1, from, right)
		root.count.Store(2)
		s.root.Store(root)
	}
	if i > mid || mid == fan {
		return right, i - mid
	}
	return n, i
}

// removeAt removes entry i of level d.
func (s *Space) removeAt(p *path, d, i int) {
	n := p.step[d].n
	n.close(i)
	count := n.len()
	if d == 0 {
		return
	}
	up := p.step[d-1]
	if count == 0 {
		s.removeAt(p, d-1, up.i)
		n.release()
		return
	}
	if i == 0 {
		p.rekey(d, n.key[0].Load())
	}
	if count >= sparse {
		return
	}
	if up.i+1 < up.n.len() {
		if right := up.n.kids[up.i+1].Load(); count+right.len() <= dense {
			right.moveTo(n, 0)
			s.removeAt(p, d-1, up.i+1)
			right.release()
			return
		}
	}
	if up.i > 0 {
		if left := up.n.kids[up.i-1].Load(); count+left.len() <= dense {
			n.moveTo(left, 0)
			s.removeAt(p, d-1, up.i)
			n.release()
		}
	}
}

// collapse removes inner roots that have a single entry.
func (s *Space) collapse() {
	for root := s.root.Load(); root.kids != nil && root.len() == 1; {
		kid := root.kids[0].Load()
		s.root.Store(kid)
		root.release()
		root = kid
	}
}
