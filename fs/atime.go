package fs

import (
	"syscall"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// Atime is when reading a file, a link or a directory changes its access time, as the
// options of mount(8). It is kept lazily. What the kernel answers from its caches is not seen.
type Atime int

const (
	// Relatime: if it is not later than the last change, or a day old. The default.
	Relatime Atime = iota
	// Strictatime: always.
	Strictatime
	// Noatime: never.
	Noatime
)

// accessed is after something of in was read. It takes no lock, and asks for the time only
// if that is stored.
func (fs *FS) accessed(ctx *Caller, in *inode) {
	if fs.opt.Atime == Noatime || ctx.NoAtime || fs.opt.NoDirAtime && in.isDir() || in.flags.Load()&layout.FlagNoAtime != 0 || fs.readOnly() {
		return
	}
	if at := in.atime.Load(); fs.opt.Atime == Relatime && at > in.mtime.Load() && at > in.ctime.Load() && fs.coarse.Load()-at < int64(24*time.Hour) {
		return
	}
	in.atime.Store(fs.now())
	in.touched.Add(1)
}

// flushAllTimes makes the lazily kept times of all inodes durable.
func (fs *FS) flushAllTimes() {
	for i := range fs.icache {
		s := &fs.icache[i]
		s.mu.Lock()
		var lazy []uint64
		for ino, in := range s.m {
			if in.lazy() {
				lazy = append(lazy, ino)
			}
		}
		s.mu.Unlock()
		for _, ino := range lazy {
			in, e := fs.get(ino)
			if e == syscall.ESTALE {
				continue // gone meanwhile
			}
			if e == 0 {
				err := fs.flushTimes(in)
				fs.put(in, 1)
				e = errno(err)
			}
			if e != 0 {
				fs.warn("the times of inode %d are not stored: %v", ino, e)
				return
			}
		}
	}
}
