package fs

import (
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pagecache"
)

// Fsync makes lazily kept times durable; data and metadata are durable already.
// On a region in an ordinary file it also writes back what a crash of the host
// would lose.
func (fs *FS) Fsync(ctx *Caller, ino uint64, datasync bool) syscall.Errno {
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	defer fs.put(in, 1)
	if err := fs.flushTimes(in); err != nil {
		return errno(err)
	}
	var err error
	ctx.Wait(func() { err = fs.syncInode(in) })
	return errno(err)
}

// SyncAll is syncfs(2). EIO if another process has taken the region (lose).
func (fs *FS) SyncAll() syscall.Errno {
	if fs.owner.lost.Load() != nil {
		return syscall.EIO
	}
	if fs.readOnly() {
		return 0
	}
	return errno(fs.r.Sync(0, fs.sb.Size))
}

// syncInode writes a file's data and long attribute values, then all metadata, back to the file
// that the region is in.
func (fs *FS) syncInode(in *inode) error {
	if fs.readOnly() || !fs.needsSync() {
		return nil
	}
	runs, err := fs.dataRuns(in)
	if err != nil {
		return err
	}
	for _, u := range runs {
		if err := fs.r.Sync(int64(u.block)<<layout.BlockShift, int64(u.n)<<layout.BlockShift); err != nil {
			return err
		}
	}
	if err := fs.r.Sync(0, fs.sb.StaticEnd); err != nil {
		return err
	}
	for _, c := range fs.meta.Chunks() {
		off := c << fs.sb.ChunkShift
		if err := fs.r.Sync(off, min(fs.sb.ChunkSize(), fs.sb.Size-off)); err != nil {
			return err
		}
	}
	return nil
}

// dataRuns lists the data blocks of an inode, long attribute values among them: all its blocks
// outside metadata chunks.
func (fs *FS) dataRuns(in *inode) (runs []run, err error) {
	in.io.Lock()
	defer in.io.Unlock()
	if !in.isDir() {
		if err := fs.loadExtentsLocked(in); err != nil {
			return nil, err
		}
	}
	in.mu.RLock()
	xs, err := fs.loadXattrsLocked(in)
	in.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	for _, x := range xs.list {
		for _, r := range x.Runs {
			runs = append(runs, run{r.Block, uint64(r.Len)})
		}
	}
	if in.isDir() {
		return runs, nil
	}
	in.space.Ascend(0, func(e pagecache.Extent) bool {
		runs = append(runs, run{e.Block, uint64(e.Len)})
		return true
	})
	return runs, nil
}
