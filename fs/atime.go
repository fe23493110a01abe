package fs

import (
	"syscall"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// Atime selects when a read of a file, a link or a directory updates its access time, like the
// options of mount(8). The time is updated lazily. Reads that the kernel answers from its caches do
// not count.
type Atime int

const (
	// Relatime updates it if it is not later than the last change, or is a day old. The default.
	Relatime Atime = iota
	// Strictatime updates it with every read.
	Strictatime
	// Noatime never updates it.
	Noatime
)

// accessed updates the access time after a read, if Options.Atime and the flags ask for that. It
// takes no lock, and reads the clock only if it stores the time.
func (fs *FS) accessed(ctx *Caller, in *inode) {
	if fs.opt.Atime == Noatime || ctx.NoAtime || fs.opt.NoDirAtime && in.isDir() || in.flags.Load()&layout.FlagNoAtime != 0 || fs.readOnly() {
		return
	}
	if at := in.atime.Load(); fs.opt.Atime == Relatime && at > in.mtime.Load() && at > in.ctime.Load() && fs.background.now.Load()-at < int64(24*time.Hour) {
		return
	}
	in.atime.Store(fs.now())
	in.touched.Add(1)
}

// flushAllTimes makes the lazily updated times of all inodes durable. Called with no lock held.
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
