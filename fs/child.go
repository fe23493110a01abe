package fs

import (
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// Locks of directories are taken from parent to child. The media are not trusted about parents and
// children: only if the entry and the child's parent field agree, and the parent's own parents lead
// up to the root, is the child locked below the parent. Such directories form a tree, so no lock is
// taken twice or out of order.

// isChild reports whether an entry of directory d may lead to in. It may not lead to the root, nor
// to a directory whose parent field names another directory.
func isChild(d, in *inode) bool {
	return !in.isDir() || in != d && in.ino != layout.RootIno && in.parent.Load() == d.ino
}

// notChild returns the error for an entry of d that leads to in although isChild is false.
func notChild(d, in *inode) error {
	return corruptf("directory %d has an entry that leads to directory %d, whose parent is %d", d.ino, in.ino, in.parent.Load())
}

// childLocked returns the inode that an entry of d leads to, with one more reference. Its mu may be
// taken while d.mu is held. EIO if the inode does not exist. Called with d.mu held; d is anchored.
func (fs *FS) childLocked(d *inode, ino uint64) (*inode, error) {
	in, e := fs.get(ino)
	switch {
	case e == syscall.ESTALE:
		return nil, syscall.EIO // the entry is damaged
	case e != 0:
		return nil, e
	case !isChild(d, in):
		err := fs.met(notChild(d, in))
		fs.put(in, 1)
		return nil, err
	}
	if in.isDir() {
		if !in.anchored.Load() {
			in.anchored.Store(true)
		}
		if in.up.Load() != d {
			in.up.Store(d)
		}
	}
	return in, nil
}

// anchor makes sure that the parents of a directory lead up to the root. Only a directory that is
// damaged, or looked up by number, was not reached from the root. EAGAIN if ctx may not wait and
// there are more than quickSteps parents. Called with no lock held.
func (fs *FS) anchor(ctx *Caller, in *inode) error {
	if in.anchored.Load() {
		return nil
	}
	err := fs.climb(ctx, in)
	if err != nil && err != syscall.EAGAIN { // perhaps only because a directory was moved meanwhile
		if err = fs.lockRename(ctx); err != nil {
			return err
		}
		err = fs.climb(ctx, in)
		fs.rename.Unlock()
	}
	if err == nil {
		in.anchored.Store(true)
	}
	return fs.met(err)
}

// climb follows the parents of a directory up to the first anchored one. It takes no inode's lock.
// EAGAIN as anchor.
func (fs *FS) climb(ctx *Caller, in *inode) error {
	mark := in.ino // Brent's algorithm: a cycle comes back to the mark
	for n, d := 1, in.ino; d != layout.RootIno; n++ {
		if ctx.NoWait && n > quickSteps {
			return syscall.EAGAIN
		}
		p, e := fs.get(d)
		if e != 0 {
			return corruptf("directory %d, a parent above directory %d, does not exist", d, in.ino)
		}
		isDir, done := p.isDir(), p.anchored.Load()
		up := p.parent.Load()
		fs.put(p, 1)
		switch {
		case done:
			return nil
		case !isDir || up == mark:
			return corruptf("the parents of directory %d do not lead up to the root", in.ino)
		}
		if d = up; n&(n-1) == 0 {
			mark = d
		}
	}
	return nil
}

// quickSteps bounds the parents that a request with NoWait follows.
const quickSteps = 1000

// isUnderLocked reports whether directory d is top or below it. It takes no inode's lock. EAGAIN if
// ctx may not wait and there are more than quickSteps parents. Called with the rename mutex held,
// so that parents do not change.
func (fs *FS) isUnderLocked(ctx *Caller, d, top *inode) (bool, error) {
	mark := uint64(0) // Brent's algorithm: a cycle comes back to the mark
	for n := 1; ; n++ {
		if d.ino == top.ino {
			return true, nil
		}
		if d.ino == layout.RootIno {
			return false, nil
		}
		if ctx.NoWait && n > quickSteps {
			return false, syscall.EAGAIN
		}
		if d.ino == mark {
			return false, corruptf("the parents of directory %d do not lead up to the root", d.ino)
		}
		if n&(n-1) == 0 {
			mark = d.ino
		}
		if d = fs.parentOfLocked(d); d == nil {
			return false, nil // a removed directory is below nothing
		}
	}
}

// parentOfLocked returns the parent of a directory, or nil if there is no such directory. The
// result has no reference: only its number and its own parent may be read. Called with the rename
// mutex held.
func (fs *FS) parentOfLocked(d *inode) *inode {
	if up := d.up.Load(); up != nil && up.refs.Load() > 0 { // it is the cached inode
		return up
	}
	up, e := fs.get(d.parent.Load())
	if e != 0 {
		return nil
	}
	d.up.Store(up)
	fs.put(up, 1)
	return up
}
