package fs

import (
	"syscall"

	"github.com/daxfsd/daxfsd/fs/dirindex"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// Unlink removes a name of an inode that is not a directory. The inode is freed with its last name
// and last reference.
func (fs *FS) Unlink(ctx *Caller, dir uint64, name string) syscall.Errno {
	return fs.remove(ctx, dir, name, false)
}

// Rmdir removes an empty directory.
func (fs *FS) Rmdir(ctx *Caller, dir uint64, name string) syscall.Errno {
	if name == "." {
		return syscall.EINVAL
	}
	if name == ".." {
		return syscall.ENOTEMPTY
	}
	return fs.remove(ctx, dir, name, true)
}

// remove removes a name of a directory (rmdir) or of another inode. It needs no free space.
//
// Persistence order:
//  1. transaction: the dentry's lines cleared; the inode's core line (link count) and times line;
//     the directory's times line, and its core line for rmdir
//  2. the inode, if that was its last name and it has no references: reclaim
//  3. the directory's block, if it became empty: trimDirLocked
func (fs *FS) remove(ctx *Caller, dir uint64, name string, rmdir bool) syscall.Errno {
	if e := fs.mayChange(); e != 0 {
		return e
	}
	d, e := fs.getDir(ctx, dir)
	if e != 0 {
		return e
	}
	defer fs.put(d, 1)
	var read *inode // returned by the last try, kept in DRAM for this one
	for {
		unread, e := fs.tryRemove(ctx, d, name, rmdir)
		if read != nil {
			fs.put(read, 1)
		}
		if unread == nil {
			return e
		}
		if err := fs.extentsLoaded(ctx, unread); err != nil {
			fs.put(unread, 1)
			return errno(err)
		}
		read = unread
	}
}

// tryRemove is remove, except that it does not remove a directory whose names are not in DRAM. It
// returns that directory with one more reference, and has changed nothing. The caller reads the
// names while it holds no lock of the parent.
func (fs *FS) tryRemove(ctx *Caller, d *inode, name string, rmdir bool) (unread *inode, e syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	de, ok, err := fs.find(d, name)
	if err != nil {
		return nil, errno(err)
	}
	if !ok {
		return nil, syscall.ENOENT
	}
	in, err := fs.childLocked(d, de.Ino)
	if err != nil {
		return nil, errno(err)
	}
	if rmdir && in.unread() {
		return in, 0
	}
	if e := mayDelete(d, in); e != 0 {
		err = e
	} else {
		err = fs.removeLocked(ctx, d, in, &de, rmdir)
	}
	fs.put(in, 1)
	if err != nil {
		return nil, errno(err)
	}
	fs.trimDirLocked(ctx, d, de.Pos)
	return nil, 0
}

// unread reports whether in is a directory whose names are not in DRAM.
func (in *inode) unread() bool { return in.isDir() && !in.loaded.Load() }

func (fs *FS) removeLocked(ctx *Caller, d, in *inode, de *dirindex.Entry, rmdir bool) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.mayRemoveLocked(rmdir); err != nil {
		return err
	}
	now := fs.now()
	c := fs.begin(ctx)
	u := c.update(in)
	u.unlinked()
	u.stamp(SetCtime, now)
	u = c.update(d)
	c.unlink(u, de)
	if rmdir {
		dropSubdir(&u.Core)
	}
	u.stamp(SetMtime|SetCtime, now)
	if err := c.commit(); err != nil {
		return err
	}
	fs.freeing.nameGoneLocked(in)
	return nil
}

// dropSubdir removes the link that a directory has for a subdirectory. A link count that damage
// made too low stays as it is, so that it never says that the directory itself is gone.
func dropSubdir(c *layout.Core) {
	if c.Nlink > 2 {
		c.Nlink--
	}
}

// mayRemoveLocked returns an error if the inode must keep a name. Called with in.mu held.
// Precondition: the names of a directory are in DRAM (not unread).
func (in *inode) mayRemoveLocked(rmdir bool) error {
	switch {
	case in.core.Nlink == 0:
		return corruptf("inode %d has a name, and a link count of 0", in.ino)
	case !rmdir && in.isDir():
		return syscall.EISDIR
	case rmdir && !in.isDir():
		return syscall.ENOTDIR
	case rmdir && in.dir.Len() > 0:
		return syscall.ENOTEMPTY
	case rmdir && in.dir.Lost() > 0:
		return corruptf("directory %d lost names by damage", in.ino)
	}
	return nil
}

// unlinked removes one link of an inode, or both links of a directory.
func (u *update) unlinked() {
	if u.Core.Nlink--; u.in.isDir() {
		u.Core.Nlink = 0
	}
}
