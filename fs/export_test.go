package fs

import "github.com/daxfsd/daxfsd/refcnt"

// Table returns the folio table.
func (fs *FS) Table() *refcnt.Table { return fs.table }

// FreeIdle frees blocks whose last reference was dropped.
func (fs *FS) FreeIdle(block, n uint64) { fs.free.idle(block, n) }

// LimitAlloc makes f limit each allocation: f returns how many of the wanted blocks, inodes or
// chunks it may take; 0 means that it finds no space. A nil f removes the limit.
func (fs *FS) LimitAlloc(f func(want uint64) uint64) { fs.reserve.limit = f }

// HoldIO locks an inode's io, as an operation on its extents does, until release is called.
func (fs *FS) HoldIO(ino uint64) (release func()) {
	in, e := fs.get(ino)
	if e != 0 {
		panic(e)
	}
	in.io.Lock()
	return func() { in.io.Unlock(); fs.put(in, 1) }
}

// HoldRange locks a file's first n bytes against readers and writers until release is called.
func (fs *FS) HoldRange(ino uint64, n int64) (release func()) {
	in, e := fs.get(ino)
	if e != 0 {
		panic(e)
	}
	lock := in.rl.Lock(0, n, true)
	return func() { in.rl.Unlock(lock); fs.put(in, 1) }
}

// HoldRename locks the rename mutex until release is called.
func (fs *FS) HoldRename() (release func()) {
	fs.rename.Lock()
	return fs.rename.Unlock
}

// SpendMoves spends the budget of moves in the background.
func (fs *FS) SpendMoves() { fs.defrag.moved.Store(1 << 60) }

// CollapseEnded is what the mount does in the background after leases have ended.
func (fs *FS) CollapseEnded(ctx *Caller) { fs.defrag.collapseEnded(ctx) }

// Requested returns how many blocks promotions have moved.
func (fs *FS) Requested() uint64 { return fs.defrag.requested.Load() }
