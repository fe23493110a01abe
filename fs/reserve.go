package fs

import (
	"github.com/daxfs/daxfs/fs/layout"
	"github.com/daxfs/daxfs/fs/metaspace"
)

// Two reserves keep a full filesystem usable. Root's reserve (Superblock.RootBlocks) is for root's
// data and metadata. The chunk reserve is whole chunks that data may not take, so that metadata can
// still grow; where root has a reserve, the last of these chunks is root's, too. Deleting needs
// no space at all.

// chunkReserve is how many free chunks the chunk reserve has while nothing was taken from it.
func (fs *FS) chunkReserve() uint64 {
	n := min(1+uint64(fs.sb.Size>>fs.sb.ChunkShift)/256, 64)
	if fs.sb.RootBlocks > 0 {
		n++
	}
	return n
}

// keepChunks tells the allocator how many chunks data may not take: what is left of the chunk reserve
// above root's. Else root could not put data where others' metadata left it space.
func (fs *FS) keepChunks() {
	n := fs.chunkReserve()
	if fs.sb.RootBlocks > 0 {
		above := fs.alloc.FreeBlocks()
		above -= min(above, fs.sb.RootBlocks)
		n = max(1, min(n, above/uint64(fs.sb.ChunkBlocks())))
	}
	if fs.chunksKept.Swap(n) != n {
		fs.alloc.SetReserve(n)
	}
}

// mayAddChunk reports whether a user may have another chunk for metadata. Of others than root it
// must leave root's reserve, and one chunk for root's metadata.
func (fs *FS) mayAddChunk(uid uint32) bool {
	return uid == 0 || fs.sb.RootBlocks == 0 || fs.alloc.FreeBlocks() >= fs.sb.RootBlocks+2*uint64(fs.sb.ChunkBlocks())
}

// available is how many blocks data can take, of root or of others.
func (fs *FS) available(root bool) uint64 {
	free, keep := fs.alloc.FreeBlocks(), fs.chunksKept.Load()*uint64(fs.sb.ChunkBlocks())
	if !root {
		keep += fs.sb.RootBlocks
	}
	return free - min(free, keep)
}

// spare is how many of want blocks a user may take. It does not say that there are as
// many. Several at once may take a little more than is theirs.
func (fs *FS) spare(uid uint32, want uint64) uint64 {
	want = fs.granted(want)
	if uid == 0 || fs.sb.RootBlocks == 0 {
		return want
	}
	return min(want, fs.available(false))
}

// chunkShift is log2 of a chunk in blocks.
func (fs *FS) chunkShift() uint { return uint(fs.sb.ChunkShift) - layout.BlockShift }

// newMeta returns a space for metadata that has no chunks yet, and gets more from the free space.
func (fs *FS) newMeta() *metaspace.Space {
	return metaspace.New(fs.journal, fs.sb, metaspace.Hooks{
		AllocChunk: func(uid uint32) (block uint64, ok bool) {
			if fs.granted(1) == 0 || !fs.mayAddChunk(uid) {
				return 0, false
			}
			defer fs.keepChunks()
			return fs.alloc.AllocChunk()
		},
		FreeChunk: func(block uint64) {
			fs.freeIdle(block, uint64(fs.sb.ChunkBlocks()))
			fs.keepChunks()
		},
		Bad:            func(block uint64) bool { return fs.bad.Has(block, 1) },
		BlockFreeTwice: fs.metaFreeTwice,
		InodeFreeTwice: fs.inodeFreeTwice,
		MayAlloc:       func() bool { return fs.granted(1) > 0 },
	})
}

// metaFreeTwice is told of a metadata block that is given back and free: the saved free map was wrong.
func (fs *FS) metaFreeTwice(block uint64) {
	if !fs.mounted.fromFreeMap {
		panic("fs: double free of a metadata block")
	}
	fs.doubt(block)
}

// inodeFreeTwice is told of an inode that is given back and free: the saved free map was wrong.
func (fs *FS) inodeFreeTwice(ino uint64) {
	if !fs.mounted.fromFreeMap {
		panic("fs: double free of an inode")
	}
	fs.contradiction(corruptf("inode %d was in use, and is free by the saved free map", ino))
}
