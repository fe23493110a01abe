package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/daxfs/daxfs/fs"
)

// entry answers a request that yields a looked-up or created inode.
func entry(c *call, out *fuse.EntryOut, e syscall.Errno) fuse.Status {
	if e == 0 {
		putEntry(out, &c.attr)
	}
	return status(e)
}

// Lookup answers a path component. An absent name is an answer too, which the
// kernel remembers. "." and ".." come from NFS handles and may name any inode.
func (a *Adapter) Lookup(cancel <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	c := a.get(cancel, h)
	defer a.put(c)
	return status(a.lookup(&c.ctx, h.NodeId, name, &c.attr, out))
}

func (a *Adapter) lookup(ctx *fs.Context, dir uint64, name string, at *fs.Attr, out *fuse.EntryOut) (e syscall.Errno) {
	if name == "." {
		e = a.core.Ref(dir, at)
	} else {
		e = a.core.Lookup(ctx, dir, name, at)
		if e == syscall.ENOENT {
			*out = fuse.EntryOut{}
			out.SetEntryTimeout(forever)
			return 0
		}
	}
	if e == 0 {
		putEntry(out, at)
	}
	return e
}

// Forget gives back n lookups of an inode.
func (a *Adapter) Forget(nodeid, n uint64) { a.core.Forget(nodeid, n) }

// Mknod creates a file of any type but a directory or a symbolic link.
func (a *Adapter) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	c.ctx.Umask = in.Umask
	return entry(c, out, a.core.Mknod(&c.ctx, in.NodeId, name, in.Mode, in.Rdev, &c.attr))
}

// Mkdir creates a directory.
func (a *Adapter) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	c.ctx.Umask = in.Umask
	return entry(c, out, a.core.Mkdir(&c.ctx, in.NodeId, name, in.Mode, &c.attr))
}

// Symlink creates a symbolic link.
func (a *Adapter) Symlink(cancel <-chan struct{}, h *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	c := a.get(cancel, h)
	defer a.put(c)
	return entry(c, out, a.core.Symlink(&c.ctx, h.NodeId, name, target, &c.attr))
}

// Link creates another name for an inode.
func (a *Adapter) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	return entry(c, out, a.core.Link(&c.ctx, in.Oldnodeid, in.NodeId, name, &c.attr))
}

// Readlink reads a symbolic link.
func (a *Adapter) Readlink(cancel <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	c := a.get(cancel, h)
	defer a.put(c)
	b, e := a.core.Readlink(&c.ctx, h.NodeId, nil)
	return b, status(e)
}

// Unlink removes a name of a file.
func (a *Adapter) Unlink(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	c := a.get(cancel, h)
	defer a.put(c)
	return status(a.core.Unlink(&c.ctx, h.NodeId, name))
}

// Rmdir removes an empty directory.
func (a *Adapter) Rmdir(cancel <-chan struct{}, h *fuse.InHeader, name string) fuse.Status {
	c := a.get(cancel, h)
	defer a.put(c)
	return status(a.core.Rmdir(&c.ctx, h.NodeId, name))
}

// Rename answers rename(2) and renameat2(2).
func (a *Adapter) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	return status(a.core.Rename(&c.ctx, in.NodeId, from, in.Newdir, to, in.Flags))
}

// Access is never asked on a mount with default_permissions.
func (a *Adapter) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }

// OpenDir opens a directory: there is no state to keep, the cookies are stable.
func (a *Adapter) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.OK
}

// ReleaseDir closes a directory.
func (a *Adapter) ReleaseDir(*fuse.ReleaseIn) {}

// ReadDir lists a directory from the cookie in.Offset on.
func (a *Adapter) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	c.ctx.NoAtime = in.Flags&unix.O_NOATIME != 0
	return status(a.core.ReadDir(&c.ctx, in.NodeId, in.Offset, func(d *fs.Dirent) bool {
		return out.AddDirEntry(direntry(d))
	}))
}

// ReadDirPlus lists a directory and looks every entry up on the way. An entry
// that vanished in between, like "." and "..", has nodeid 0: the kernel then
// takes the name and looks it up when asked.
func (a *Adapter) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	c.ctx.NoAtime = in.Flags&unix.O_NOATIME != 0
	return status(a.core.ReadDir(&c.ctx, in.NodeId, in.Offset, func(d *fs.Dirent) bool {
		o := out.AddDirLookupEntry(direntry(d))
		if o == nil {
			return false
		}
		if n := d.Name; n[0] == '.' && (len(n) == 1 || len(n) == 2 && n[1] == '.') {
			return true
		}
		if a.core.Ref(d.Ino, &c.attr) == 0 {
			putEntry(o, &c.attr)
		}
		return true
	}))
}

// direntry is d for go-fuse, which copies the name before d ends.
func direntry(d *fs.Dirent) fuse.DirEntry {
	return fuse.DirEntry{Mode: uint32(d.Type) << 12, Name: nameString(d.Name), Ino: d.Ino, Off: d.Next}
}
