package dirindex

// table finds the positions of a directory's entries by the hash of their names: an extendible hash
// table (Fagin et al., 1979). It grows by splitting one leaf in two, so that no change of a
// directory, however large, takes longer than moving the entries of one leaf. The zero value is
// empty.
type table struct {
	leaves []*leaf // by the upper bits of the hash; some may be the same one
	bits   uint8   // how many bits that are: len(leaves) is 1<<bits, or 0
	count  int     // entries
}

// leaf is a table with open addressing and linear probing, at most 3/4 full.
type leaf struct {
	slots []uint64 // hash<<32 | position+1; 0: empty. The lower bits of the hash say where probing begins
	count int
	bits  uint8 // how many upper bits of the hash all of its entries have in common
}

const (
	leafMin = 16   // slots
	leafMax = 4096 // slots; beyond that a leaf is split
	// leafBits bounds the depth: entries of one hash cannot be split.
	leafBits = 20
)

// leaf returns the leaf of a hash; nil: the table is empty.
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

// split replaces the leaf of a hash by two.
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
	n := 1 << (t.bits - bits) // entries of leaves that each half gets
	first := int(uint64(h)>>(32-t.bits)) &^ (2*n - 1)
	for i := range 2 * n {
		t.leaves[first+i] = half[i/n]
	}
}

// remove takes a position away.
// Precondition: it was inserted under that hash.
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

// next returns the position of the next entry of a hash from slot *i on, which begins as the hash;
// false: there are no more.
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

// remove takes an entry away; those behind it move up (backward shift), so there are never
// tombstones.
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
