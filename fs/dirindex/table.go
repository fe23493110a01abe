package dirindex

// table maps the hashes of names to the positions of their entries. It is an extendible hash table
// (Fagin et al., 1979): it grows by splitting one leaf in two. So a single change never takes much
// longer than moving the entries of one leaf, however large the directory is. The zero value is
// empty.
type table struct {
	leaves []*leaf // by the upper bits of the hash; several elements may be the same leaf
	bits   uint8   // number of these bits: len(leaves) is 1<<bits, or 0 if the table is empty
	count  int     // number of entries
}

// leaf is a hash table with open addressing and linear probing. It is at most 3/4 full.
type leaf struct {
	slots []uint64 // hash<<32 | position+1; 0: empty. Probing begins at the lower bits of the hash
	count int      // number of entries
	bits  uint8    // number of upper bits of the hash that all entries have in common
}

const (
	leafMin = 16   // slots
	leafMax = 4096 // slots; a larger leaf is split instead
	// leafBits is the largest leaf.bits. It is bounded because splitting does not separate entries
	// of one hash.
	leafBits = 20
)

// leaf returns the leaf of a hash; nil if the table is empty.
func (t *table) leaf(h uint32) *leaf {
	if t.leaves == nil {
		return nil
	}
	return t.leaves[uint64(h)>>(32-t.bits)]
}

// insert adds a position under a hash.
func (t *table) insert(h, pos uint32) {
	if t.leaves == nil {
		t.leaves = []*leaf{{slots: make([]uint64, leafMin)}}
	}
	l := t.leaf(h)
	for (l.count+1)*4 > len(l.slots)*3 {
		if len(l.slots) < leafMax || l.bits == leafBits {
			l.resize(2 * len(l.slots))
		} else {
			t.split(h, l)
			l = t.leaf(h)
		}
	}
	l.add(uint64(h)<<32 | uint64(pos+1))
	t.count++
}

// split replaces l, the leaf of hash h, by two.
func (t *table) split(h uint32, l *leaf) {
	if l.bits == t.bits {
		wider := make([]*leaf, 2*len(t.leaves))
		for i, l := range t.leaves {
			wider[2*i], wider[2*i+1] = l, l
		}
		t.leaves, t.bits = wider, t.bits+1
	}
	bits := l.bits + 1
	half := [2]*leaf{{slots: make([]uint64, leafMax), bits: bits}, {slots: make([]uint64, leafMax), bits: bits}}
	for _, v := range l.slots {
		if v != 0 {
			half[v>>(64-bits)&1].add(v)
		}
	}
	n := 1 << (t.bits - bits) // number of elements of leaves for each half
	first := int(uint64(h)>>(32-t.bits)) &^ (2*n - 1)
	for i := range 2 * n {
		t.leaves[first+i] = half[i/n]
	}
}

// remove removes a position.
//
// Precondition: the position was inserted under that hash.
func (t *table) remove(h, pos uint32) {
	l := t.leaf(h)
	l.remove(h, pos)
	t.count--
	switch {
	case t.count == 0:
		*t = table{}
	case t.bits > 0 && t.count < leafMax/8:
		t.collapse()
	case len(l.slots) > leafMin && l.count*8 < len(l.slots):
		l.resize(len(l.slots) / 4)
	}
}

// collapse moves all entries to one leaf.
func (t *table) collapse() {
	one := &leaf{slots: make([]uint64, leafMax/4)}
	for i, l := range t.leaves {
		if i > 0 && l == t.leaves[i-1] {
			continue
		}
		for _, v := range l.slots {
			if v != 0 {
				one.add(v)
			}
		}
	}
	t.leaves, t.bits = []*leaf{one}, 0
}

// next returns the position of the next entry of hash h from slot *i on, and moves *i behind it.
// The caller sets *i to the hash at first. ok is false if there is none.
func (l *leaf) next(h uint32, i *uint32) (pos uint32, ok bool) {
	mask := uint32(len(l.slots) - 1)
	for ; ; *i++ {
		v := l.slots[*i&mask]
		if v == 0 {
			return 0, false
		}
		if uint32(v>>32) == h {
			*i++
			return uint32(v) - 1, true
		}
	}
}

func (l *leaf) add(v uint64) {
	mask := uint32(len(l.slots) - 1)
	i := uint32(v>>32) & mask
	for l.slots[i] != 0 {
		i = (i + 1) & mask
	}
	l.slots[i] = v
	l.count++
}

// resize moves the entries to n slots.
func (l *leaf) resize(n int) {
	old := l.slots
	l.slots, l.count = make([]uint64, max(leafMin, n)), 0
	for _, v := range old {
		if v != 0 {
			l.add(v)
		}
	}
}

// remove removes an entry. Entries behind it move up (backward shift), so there are no tombstones.
func (l *leaf) remove(h, pos uint32) {
	mask := uint32(len(l.slots) - 1)
	i := h & mask
	for l.slots[i] != uint64(h)<<32|uint64(pos+1) {
		i = (i + 1) & mask
	}
	for j := i; ; {
		j = (j + 1) & mask
		v := l.slots[j]
		if v == 0 {
			break
		}
		if home := uint32(v>>32) & mask; (j-home)&mask >= (j-i)&mask {
			l.slots[i] = v
			i = j
		}
	}
	l.slots[i] = 0
	l.count--
}
