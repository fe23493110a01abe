package fs

import (
	"slices"
	"sync"
)

// xattrListsKept is how many lists of attributes are in DRAM at a time. One takes about 1 MiB at
// most.
const xattrListsKept = 16

// xattrCache bounds the DRAM that lists of attributes take, however many files have long ones. The
// list that came first is dropped first. An inode is in the cache if and only if its xattrs is not
// nil.
type xattrCache struct {
	mu   sync.Mutex // taken with an inode's mu, or its shard's lock, held
	kept [xattrListsKept]*inode
	next int // index in kept of the inode that is dropped next
}

// keepLocked keeps an inode's list. Called with the inode's mu held.
func (c *xattrCache) keepLocked(in *inode, xs *xattrs) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Contains(c.kept[:], in) {
		if old := c.kept[c.next]; old != nil {
			old.xattrs.Store(nil)
		}
		c.kept[c.next] = in
		c.next = (c.next + 1) % len(c.kept)
	}
	in.xattrs.Store(xs)
}

// drop forgets an inode's list, if it is kept. Called with the inode's mu held, or by the holder of
// all references.
func (c *xattrCache) drop(in *inode) {
	if in.xattrs.Load() == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.kept[:], in); i >= 0 {
		c.kept[i] = nil
	}
	in.xattrs.Store(nil)
}
