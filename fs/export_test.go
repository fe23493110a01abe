package fs

// Refuse has f decide whether an allocation finds no space: of blocks for data, of a metadata
// block, of an inode.
func (fs *FS) Refuse(f func() bool) { fs.refuse = f }
