package fs

// Grant has f say how many of the blocks, inodes or chunks that an allocation wants it may ask for;
// 0: it finds no space. nil: all.
func (fs *FS) Grant(f func(want uint64) uint64) { fs.grant = f }
