package fs

import (
	"errors"
	"fmt"

	"github.com/daxfsd/daxfsd/fs/badmem"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

// offlineBad takes out of the free space what is bad of it, while mounting: all that is in use is
// claimed, and nothing was allocated yet. It takes as many steps as there are runs of free blocks,
// bad ranges and metadata chunks: ranges of a crafted list may cover all of a region that is mostly
// holes.
func (fs *FS) offlineBad() {
	if len(fs.bad.Ranges()) == 0 {
		return
	}
	var free []badmem.Range // in bad ranges
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
				fs.meta.Claim(b) // if it is a free one
			}
		}
	}
}

// saveBad saves what is bad, now and whenever there is more, for as long as the filesystem changes.
func (fs *FS) saveBad() error {
	return fs.bad.StartSaving(func() (seq uint64, ok bool) { return fs.journal.Seq(), !fs.readOnly() })
}

// offlineFree is told of the error of reading what nobody keeps from becoming free, after
// badmem.List.Faulted was. If the block became free meanwhile it goes offline. Called without a
// lock of fs.meta.
func (fs *FS) offlineFree(err error) {
	var m pmem.MediaError
	if !errors.As(err, &m) {
		return
	}
	if b := uint64(m.Off) >> layout.BlockShift; fs.bad.Has(b, 1) && !fs.meta.Claim(b) && fs.alloc.Reserve(b, 1) {
		fs.bad.Offline(1)
	}
}

// MarkBad makes n bytes of a file from off on unreadable, as a fault in each of their blocks would:
// for tests.
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
