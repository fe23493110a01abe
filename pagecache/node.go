package pagecache

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// fan is the largest number of entries in a node. With it, a leaf just fits in 896 bytes, a size
// class of Go's allocator.
const fan = 36

// node is a leaf, whose entries are extents, or an inner node, whose entries are nodes by their
// first Logical. Keys are exact at every level. So the leaf where a search ends has the last extent
// at or before the block that is searched, and the key after the path is where the next extent
// starts.
//
// States and the calls that move a node between them:
//
//	pooled  in a pool, no entries       newLeaf, newInner -> linked
//	linked  in the tree of one Space    release -> pooled
//
// A reader may still be in a node that was released, and that is linked elsewhere since.
type node struct {
	kids  *[fan]atomic.Pointer[node] // nil in a leaf; immutable
	count atomic.Uint32              // entries
	key   [fan]atomic.Uint64         // Logical
	rest  [fan]struct {              // used in a leaf; both words on one cache line
		place atomic.Uint64 // Block and Flags
		size  atomic.Uint64 // Len and Slot
	}
}

var (
	leaves = sync.Pool{New: func() any { return new(node) }}
	inners = sync.Pool{New: func() any { return &node{kids: new([fan]atomic.Pointer[node])} }}
)

func newLeaf() *node  { return leaves.Get().(*node) }
func newInner() *node { return inners.Get().(*node) }

// like returns an empty node of the same kind.
func (n *node) like() *node {
	if n.kids == nil {
		return newLeaf()
	}
	return newInner()
}

// release puts a node that is no longer in the tree into its pool. It does not release the nodes
// that its entries point to.
func (n *node) release() {
	if n.kids == nil {
		n.count.Store(0)
		leaves.Put(n)
		return
	}
	for i := range n.len() {
		n.kids[i].Store(nil)
	}
	n.count.Store(0)
	inners.Put(n)
}

// releaseAll releases a whole tree.
func (n *node) releaseAll() {
	if n.kids != nil {
		for i := range n.len() {
			n.kids[i].Load().releaseAll()
		}
	}
	n.release()
}

func (n *node) len() int { return int(n.count.Load()) }

// rank returns how many of the first count keys are at or before logical.
//
// Precondition: count is at most fan.
//
// It counts by every stride-th key, and then by the keys of one stride. That takes about as many
// steps as a binary search. But the loads do not wait for each other, so that the cache lines of a
// node that is not cached come in together. And no branch depends on a key, which the processor
// could not predict.
func (n *node) rank(count int, logical uint64) int {
	const stride = 6
	keys := n.key[:count]
	low := 0
	for i := stride - 1; i < len(keys); i += stride {
		_, after := bits.Sub64(logical, keys[i].Load(), 0) // 1 if the key is after logical
		low += stride &^ -int(after)
	}
	keys = keys[low:min(low+stride-1, count)]
	for i := range keys {
		_, after := bits.Sub64(logical, keys[i].Load(), 0)
		low += 1 - int(after)
	}
	return low
}

func (n *node) extent(i int) Extent {
	return unpack(n.key[i].Load(), n.rest[i].place.Load(), n.rest[i].size.Load())
}

func (n *node) setExtent(i int, e Extent) {
	n.key[i].Store(e.Logical)
	n.rest[i].place.Store(e.place())
	n.rest[i].size.Store(e.size())
}

func (n *node) setKid(i int, key uint64, kid *node) {
	n.key[i].Store(key)
	n.kids[i].Store(kid)
}

// copyEntry copies entry i of from to entry j of n.
func (n *node) copyEntry(j int, from *node, i int) {
	n.key[j].Store(from.key[i].Load())
	if n.kids != nil {
		n.kids[j].Store(from.kids[i].Load())
		return
	}
	n.rest[j].place.Store(from.rest[i].place.Load())
	n.rest[j].size.Store(from.rest[i].size.Load())
}

// open makes room for an entry at index i. Precondition: the node is not full.
func (n *node) open(i int) {
	count := n.len()
	for j := count; j > i; j-- {
		n.copyEntry(j, n, j-1)
	}
	n.count.Store(uint32(count + 1))
}

// close removes entry i.
func (n *node) close(i int) {
	count := n.len()
	for j := i; j < count-1; j++ {
		n.copyEntry(j, n, j+1)
	}
	if n.kids != nil {
		n.kids[count-1].Store(nil)
	}
	n.count.Store(uint32(count - 1))
}

// moveTo moves the entries from index i on to the end of another node.
//
// Precondition: they fit there.
func (n *node) moveTo(to *node, i int) {
	have, count := to.len(), n.len()
	for j := i; j < count; j++ {
		to.copyEntry(have+j-i, n, j)
		if n.kids != nil {
			n.kids[j].Store(nil)
		}
	}
	to.count.Store(uint32(have + count - i))
	n.count.Store(uint32(i))
}

// find is Space.find for a tree. A reader that races with a change may pass through any nodes here.
// The depth is bounded, the counts are bounded by fan, and if a pointer is missing the result is
// not sound.
func (n *node) find(logical uint64) (f found, sound bool) {
	f.next = None
	for range maxDepth {
		count := min(n.len(), fan)
		i := n.rank(count, logical)
		if i < count {
			f.next = n.key[i].Load()
		}
		if i == 0 {
			return f, true
		}
		i--
		if n.kids == nil {
			f.logical, f.place, f.size = n.key[i].Load(), n.rest[i].place.Load(), n.rest[i].size.Load()
			return f, true
		}
		if n = n.kids[i].Load(); n == nil {
			break
		}
	}
	return f, false
}
