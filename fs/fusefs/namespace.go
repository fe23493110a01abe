package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs"
)

// entry fills in the answer to a request that looks up or creates an inode.
func (a *Adapter) entry(c *call, out *fuse.EntryOut, e syscall.Errno) syscall.Errno {
	if e == 0 {
		a.putEntry(out, &c.attr)
	}
	return e
}

func (a *Adapter) lookup(c *call, dir uint64, name string, out *fuse.EntryOut) syscall.Errno {
	if name == "." {
		return a.entry(c, out, a.core.Ref(&c.ctx, dir, &c.attr))
	}
	e := a.core.Lookup(&c.ctx, dir, name, &c.attr)
	if e == syscall.ENOENT {
		*out = fuse.EntryOut{}
		out.SetEntryTimeout(forever)
		return 0
	}
	return a.entry(c, out, e)
}

// Forget drops n lookups of an inode.
func (a *Adapter) Forget(nodeid, n uint64) { a.core.Forget(nodeid, n) }

// Mknod creates a file of any type except directories and symbolic links.
func (a *Adapter) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	c.ctx.Umask = in.Umask
	return status(a.entry(c, out, a.core.Mknod(&c.ctx, in.NodeId, name, in.Mode, in.Rdev, &c.attr)))
}

func (a *Adapter) mkdir(c *call, dir uint64, name string, mode, umask uint32, out *fuse.EntryOut) syscall.Errno {
	c.ctx.Umask = umask
	return a.entry(c, out, a.core.Mkdir(&c.ctx, dir, name, mode, &c.attr))
}

// Access is never called on a mount with default_permissions.
func (a *Adapter) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }

// OpenDir opens a directory. It keeps no state, since the cookies are stable.
func (a *Adapter) OpenDir(<-chan struct{}, *fuse.OpenIn, *fuse.OpenOut) fuse.Status {
	return fuse.OK
}

// ReleaseDir closes a directory.
func (a *Adapter) ReleaseDir(*fuse.ReleaseIn) {}

// readdir lists a directory from a cookie on. With plus it also looks up every entry. An entry that
// has vanished meanwhile, or whose lookup takes long, gets nodeid 0, as do "." and "..": the kernel
// then takes the name only, and looks it up when needed.
func (a *Adapter) readdir(c *call, dir, cookie uint64, flags uint32, plus bool, out *fuse.DirEntryList) syscall.Errno {
	c.ctx.NoAtime = flags&unix.O_NOATIME != 0
	look := c.ctx
	look.NoWait = true
	return a.core.ReadDir(&c.ctx, dir, cookie, func(d *fs.Dirent) bool {
		if !plus {
			return out.AddDirEntry(direntry(d))
		}
		o := out.AddDirLookupEntry(direntry(d))
		if o == nil {
			return false
		}
		if n := d.Name; n[0] == '.' && (len(n) == 1 || len(n) == 2 && n[1] == '.') {
			return true
		}
		if a.core.RefEntry(&look, d, &c.attr) == 0 {
			a.putEntry(o, &c.attr)
		}
		return true
	})
}

// direntry converts d for go-fuse, which copies the name while d is valid.
func direntry(d *fs.Dirent) fuse.DirEntry {
	return fuse.DirEntry{Mode: uint32(d.Type) << 12, Name: nameString(d.Name), Ino: d.Ino, Off: d.Next}
}
