package fs

import (
	"fmt"
	"runtime"

	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// This file makes a write all or nothing (Options.Atomic). Data for new blocks, or beyond the end
// of file, becomes visible by one transaction in any case (extendPiece). Data that replaces a
// file's data keeps its blocks, so that large folios stay whole: the transaction carries the data
// (a logged record), and it is copied in place after the commit.

// AtomicUnit is the largest write that is all or nothing with Options.Atomic, in bytes.
const AtomicUnit = layout.LoggedData

// atomic reports whether writes are all or nothing.
func (fs *FS) atomic() bool { return fs.opt.Atomic && !fs.opt.ReadOnly }

// openBodies allocates space for the bodies of logged records: a small body for each lane, and a
// large body for each 128 MiB of the region, at least one and at most one for each CPU. No
// structure on the media names this space, so the next mount finds it free.
func (fs *FS) openBodies() error {
	take := func(n int64) (off int64, ok bool) {
		if off, ok = fs.takeFree(n); ok {
			fs.bodies = append(fs.bodies, run{uint64(off) >> layout.BlockShift, uint64(n) >> layout.BlockShift})
		}
		return off, ok
	}
	lanes, ok := take(fs.journal.LaneBodies())
	var large []int64
	for n := int(max(1, min(fs.sb.Size>>27, int64(runtime.GOMAXPROCS(0))))); ok && len(large) < n; {
		var off int64
		if off, ok = take(journal.BodySize); ok {
			large = append(large, off)
		}
	}
	if len(large) == 0 {
		return fmt.Errorf("-o atomic needs %d KiB of free space, %d KiB of them in one piece: mount without it and delete something",
			(journal.BodySize+fs.journal.LaneBodies())>>10, journal.BodySize>>10)
	}
	fs.journal.UseBodies(lanes, large)
	return nil
}

// closeBodies frees the space that openBodies allocated.
func (fs *FS) closeBodies() {
	for _, r := range fs.bodies {
		fs.free.idle(r.block, r.n)
	}
	fs.bodies = nil
}

// takeFree allocates the first free run of n bytes, and returns its region offset in bytes. n is a
// multiple of the block size.
func (fs *FS) takeFree(n int64) (off int64, ok bool) {
	want, at := uint64(n)>>layout.BlockShift, uint64(0)
	fs.alloc.Walk(func(block, free uint64) bool {
		if free >= want {
			at = block
		}
		return at == 0
	})
	return int64(at) << layout.BlockShift, at != 0 && fs.alloc.Reserve(at, want)
}

// overwriteLogged overwrites the file's bytes from off on with data, in place and all or nothing.
// done is false if data must go to new blocks: it exceeds AtomicUnit or the end of file, some of
// its blocks cannot be overwritten in place, or a bad block was found. It holds in.mu for reading,
// so a truncation waits for it.
func (fs *FS) overwriteLogged(ctx *Caller, in *inode, off int64, data []byte) (done bool, err error) {
	in.mu.RLock()
	defer in.mu.RUnlock()
	if len(data) > AtomicUnit || off+int64(len(data)) > int64(in.core.Size) || !fs.inPlace(in, off, int64(len(data))) {
		return false, nil
	}
	t := fs.journal.Begin(ctx.Lane)
	for len(data) > 0 {
		e, _ := in.space.Lookup(uint64(off) >> layout.BlockShift)
		n := min(int64(len(data)), int64(e.End())<<layout.BlockShift-off)
		t.AddData(journal.Data{Off: regionOff(e, off), Bytes: data[:n]})
		off, data = off+n, data[n:]
	}
	if err = t.Commit(); err != nil && fs.bad.Faulted(err) {
		return false, nil // the block was not known to be bad: write to a new one
	}
	return true, err
}
