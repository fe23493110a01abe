package fs

import (
	"errors"
	"fmt"

	"github.com/daxfsd/daxfsd/fs/badmem"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// offlineBad takes bad blocks out of the free space during a mount. All blocks in use are claimed
// by then, and nothing has been allocated. Its time is linear in the runs of free blocks, the bad
// ranges and the metadata chunks, not in their blocks: a crafted list may cover a whole region that
// is mostly holes.
func (fs *FS) offlineBad() {
	if len(fs.bad.Ranges()) == 0 {
		return
	}
	var free []badmem.Range // the free parts of bad ranges
	fs.alloc.Walk(func(block, n uint64) bool {
		free = append(free, fs.bad.Overlaps(block, n)...)
		return true
	})
	for _, r := range free {
		if fs.alloc.Reserve(r.Block, r.N) {
			fs.bad.Offline(r.N)
		}
	}
	for _, c := range fs.meta.Chunks() {
		for _, r := range fs.bad.Overlaps(uint64(c)<<fs.chunkShift(), uint64(fs.sb.ChunkBlocks())) {
			for b := r.Block; b < r.Block+r.N; b++ {
				fs.meta.Claim(b) // no effect on a block in use
			}
		}
	}
}

// saveBad saves the list of bad ranges, now and after each addition, until changes are refused.
func (fs *FS) saveBad() error {
	return fs.bad.StartSaving(func() (seq uint64, ok bool) { return fs.journal.Seq(), !fs.readOnly() })
}

// offlineFree takes a bad block offline if it became free while it was read. err is the error of
// that read, and badmem.List.Faulted has been called with it. Called without a lock of fs.meta.
func (fs *FS) offlineFree(err error) {
	var m pmem.MediaError
	if !errors.As(err, &m) {
		return
	}
	if b := uint64(m.Off) >> layout.BlockShift; fs.bad.Has(b, 1) && !fs.meta.Claim(b) && fs.alloc.Reserve(b, 1) {
		fs.bad.Offline(1)
	}
}

// MarkBad makes the blocks of the file's bytes [off, off+n) unreadable, as a fault in each block
// would. For tests.
func (fs *FS) MarkBad(ino uint64, off, n int64) error {
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	in.io.Lock()
	defer in.io.Unlock()
	if err := fs.loadExtentsLocked(in); err != nil {
		return err
	}
	for b := uint64(off) >> layout.BlockShift; b < blocksOf(off+n); b++ {
		e, ok := in.space.Lookup(b)
		if !ok {
			return fmt.Errorf("block %d of inode %d is a hole", b, ino)
		}
		fs.bad.Add(badmem.Range{Block: e.BlockAt(b), N: 1}, true)
	}
	return nil
}
