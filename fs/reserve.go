package fs

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
