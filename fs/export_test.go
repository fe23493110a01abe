package fs

// LimitAlloc has f say how many of the blocks, inodes or chunks that an allocation wants it may ask
// for; 0: it finds no space. nil: all.
func (fs *FS) LimitAlloc(f func(want uint64) uint64) { fs.reserve.limit = f }

// HoldIO keeps an inode's io, as an operation on its extents does, until release is called.
func (fs *FS) HoldIO(ino uint64) (release func()) {
	in, e := fs.get(ino)
	if e != 0 {
		panic(e)
	}
	in.io.Lock()
	return func() { in.io.Unlock(); fs.put(in, 1) }
}

// HoldRange keeps a file's first n bytes from readers and writers until release is called.
func (fs *FS) HoldRange(ino uint64, n int64) (release func()) {
	in, e := fs.get(ino)
	if e != 0 {
		panic(e)
	}
	lock := in.rl.Lock(0, n, true)
	return func() { in.rl.Unlock(lock); fs.put(in, 1) }
}

// HoldRename keeps the rename mutex until release is called.
func (fs *FS) HoldRename() (release func()) {
	fs.rename.Lock()
	return fs.rename.Unlock
}
