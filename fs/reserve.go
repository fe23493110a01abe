package fs

import (
	"sync/atomic"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/metaspace"
)

// reserve knows which part of the free space is kept back, and from which users. Two reserves keep
// a full filesystem usable. Root's reserve (Superblock.RootBlocks) is for root's data and metadata.
// The chunk reserve is whole chunks that data may not take, so that metadata can still grow. Where
// root has a reserve, the last of these chunks is root's, too. Deleting needs no space at all.
type reserve struct {
	fs   *FS
	kept atomic.Uint64 // chunks that data may not take, see keep

	limit func(want uint64) uint64 // set by tests only, see limitAlloc
}

// chunks returns how many free chunks the chunk reserve has while nothing was taken from it.
func (r *reserve) chunks() uint64 {
	n := min(1+uint64(r.fs.sb.Size>>r.fs.sb.ChunkShift)/256, 64)
	if r.fs.sb.RootBlocks > 0 {
		n++
	}
	return n
}

// keep tells the allocator how many chunks data may not take: the rest of the chunk reserve above
// root's reserve. Otherwise root could not put data into the space that others' metadata left to
// root.
func (r *reserve) keep() {
	n := r.chunks()
	if r.fs.sb.RootBlocks > 0 {
		above := r.fs.alloc.FreeBlocks()
		above -= min(above, r.fs.sb.RootBlocks)
		n = max(1, min(n, above/uint64(r.fs.sb.ChunkBlocks())))
	}
	if r.kept.Swap(n) != n {
		r.fs.alloc.SetReserve(n)
	}
}

// mayAddChunk reports whether a user may have another chunk for metadata. Users other than root
// must leave root's reserve, and one chunk for root's metadata.
func (r *reserve) mayAddChunk(uid uint32) bool {
	return uid == 0 || r.fs.sb.RootBlocks == 0 || r.fs.alloc.FreeBlocks() >= r.fs.sb.RootBlocks+2*uint64(r.fs.sb.ChunkBlocks())
}

// available returns how many blocks data of root, or of other users, can take.
func (r *reserve) available(root bool) uint64 {
	free, keep := r.fs.alloc.FreeBlocks(), r.kept.Load()*uint64(r.fs.sb.ChunkBlocks())
	if !root {
		keep += r.fs.sb.RootBlocks
	}
	return free - min(free, keep)
}

// spare returns how many of want blocks a user may take. There may be fewer free ones. Several
// callers at once may take a little more than their users may have.
func (r *reserve) spare(uid uint32, want uint64) uint64 {
	want = r.limitAlloc(want)
	if uid == 0 || r.fs.sb.RootBlocks == 0 {
		return want
	}
	return min(want, r.available(false))
}

// limitAlloc returns how many of want blocks (or inodes, or chunks) an allocation may ask for: all,
// unless a test makes space scarce.
func (r *reserve) limitAlloc(want uint64) uint64 {
	if r.limit == nil {
		return want
	}
	return r.limit(want)
}

// chunkShift returns log2 of a chunk's size in blocks.
func (fs *FS) chunkShift() uint { return uint(fs.sb.ChunkShift) - layout.BlockShift }

// newMeta returns a metadata space that has no chunks yet, and takes chunks from the free space.
func (fs *FS) newMeta() *metaspace.Space {
	return metaspace.New(fs.journal, fs.sb, metaspace.Hooks{
		AllocChunk: func(uid uint32) (block uint64, ok bool) {
			if fs.reserve.limitAlloc(1) == 0 || !fs.reserve.mayAddChunk(uid) {
				return 0, false
			}
			defer fs.reserve.keep()
			return fs.alloc.AllocChunk()
		},
		FreeChunk: func(block uint64) {
			fs.free.idle(block, uint64(fs.sb.ChunkBlocks()))
			fs.reserve.keep()
		},
		Bad:            func(block uint64) bool { return fs.bad.Has(block, 1) },
		BlockFreeTwice: fs.metaFreeTwice,
		InodeFreeTwice: fs.inodeFreeTwice,
		MayAlloc:       func() bool { return fs.reserve.limitAlloc(1) > 0 },
	})
}

// metaFreeTwice is called with a metadata block that is given back although it is free: the saved
// free map was wrong.
func (fs *FS) metaFreeTwice(block uint64) {
	if !fs.mounted.fromFreeMap {
		panic("fs: double free of a metadata block")
	}
	fs.doubt(block)
}

// inodeFreeTwice is called with an inode that is given back although it is free: the saved free map
// was wrong.
func (fs *FS) inodeFreeTwice(ino uint64) {
	if !fs.mounted.fromFreeMap {
		panic("fs: double free of an inode")
	}
	fs.contradiction(corruptf("inode %d was in use, but the saved free map had it as free", ino))
}
