package fs

import (
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// LinkMax is the largest link count.
const LinkMax = 1<<32 - 2

// Link gives an inode another name, fills a, and adds a reference to the inode, as Lookup does.
//
// Persistence order:
//  1. a fresh directory block, if the name needs one, is formatted and fenced
//  2. transaction: the dentry, the inode's core and times lines, the directory's times line and, if
//     it grows, its core line
func (fs *FS) Link(ctx *Caller, ino, dir uint64, name string, a *Attr) syscall.Errno {
	return fs.retryNoSpace(ctx, func() syscall.Errno { return fs.tryLink(ctx, ino, dir, name, a) })
}

func (fs *FS) tryLink(ctx *Caller, ino, dir uint64, name string, a *Attr) syscall.Errno {
	if e := fs.mayChange(); e != 0 {
		return e
	}
	if e := checkName(name); e != 0 {
		return e
	}
	d, e := fs.getDir(ctx, dir)
	if e != 0 {
		return e
	}
	defer fs.put(d, 1)
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	var err error
	if in.isDir() {
		err = syscall.EPERM
	}
	if err == nil {
		err = fs.blocksKnown(ctx, in) // attr needs this; it may fail only before the change
	}
	if err == nil {
		err = fs.link(ctx, in, d, name)
	}
	e = errno(err)
	if e == 0 {
		e = fs.attr(ctx, in, a)
	}
	if e != 0 {
		fs.put(in, 1)
	}
	return e // after success the caller has the reference of get
}

func (fs *FS) link(ctx *Caller, in, d *inode, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case d.core.Nlink == 0 || in.core.Nlink == 0 && !in.linkable:
		return syscall.ENOENT
	case in.core.Nlink >= LinkMax:
		return syscall.EMLINK
	case d.immutable() || in.immutableOrAppend():
		return syscall.EPERM
	}
	if _, ok, err := fs.find(d, name); ok || err != nil {
		if ok {
			return syscall.EEXIST
		}
		return err
	}
	p, err := fs.placeNameLocked(ctx, d, layout.DentryLines(len(name)))
	if err != nil {
		return err
	}
	now := fs.now()
	c := fs.begin(ctx)
	u := c.update(in)
	u.Core.Nlink++
	u.stamp(SetCtime, now)
	u = c.update(d)
	c.link(u, p, name, in.ino, dtype(in.typ))
	u.stamp(SetMtime|SetCtime, now)
	if err := c.commit(); err != nil {
		return err
	}
	in.linkable = false
	return nil
}
