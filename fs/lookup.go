package fs

import (
	"strings"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// checkName returns an error if name cannot be the name of a directory entry. "." and ".." are
// EEXIST.
func checkName(name string) syscall.Errno {
	switch {
	case len(name) > layout.NameMax:
		return syscall.ENAMETOOLONG
	case name == "":
		return syscall.ENOENT
	case name == "." || name == "..":
		return syscall.EEXIST
	case strings.IndexByte(name, '/') >= 0 || strings.IndexByte(name, 0) >= 0:
		return syscall.EINVAL
	}
	return 0
}

// dtype returns the DT_* type of a mode.
func dtype(mode uint32) uint8 { return uint8(mode >> 12 & 15) }

// Lookup finds a name in a directory, fills a, and adds a reference to the inode, which the caller
// gives back with Forget. It answers "." and ".." too.
func (fs *FS) Lookup(ctx *Caller, dir uint64, name string, a *Attr) syscall.Errno {
	if name == "." {
		return fs.Ref(ctx, dir, a)
	}
	if len(name) > layout.NameMax {
		return syscall.ENAMETOOLONG
	}
	d, e := fs.getDir(ctx, dir)
	if e != 0 {
		return e
	}
	defer fs.put(d, 1)
	if name == ".." {
		return fs.Ref(ctx, d.parent.Load(), a)
	}
	in, err := fs.lookupChild(d, name)
	if err != nil {
		return errno(err)
	}
	if e := fs.attr(ctx, in, a); e != 0 { // d.mu is not held here
		fs.put(in, 1)
		return e
	}
	return 0
}

// lookupChild returns the inode that a name in directory d leads to, with one more reference.
func (fs *FS) lookupChild(d *inode, name string) (*inode, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	de, ok, err := fs.find(d, name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, syscall.ENOENT
	}
	return fs.childLocked(d, de.Ino)
}

// RefEntry adds a reference to the inode of an entry and fills a. The function that ReadDir calls
// uses it. ESTALE if there is no such inode, or if it is a directory that has moved to another
// parent meanwhile.
func (fs *FS) RefEntry(ctx *Caller, d *Dirent, a *Attr) syscall.Errno {
	in, e := fs.get(d.Ino)
	if e != 0 {
		return e
	}
	if !isChild(d.dir, in) {
		e = syscall.ESTALE
	} else {
		e = fs.attr(ctx, in, a)
	}
	if e != 0 {
		fs.put(in, 1)
	}
	return e
}

// Ref adds a reference to the inode with number ino and fills a. ESTALE if there is no such inode,
// or if it has no name left: a kernel asks by number only for inodes that no process has open, and
// its Forget of this one may be on its way.
func (fs *FS) Ref(ctx *Caller, ino uint64, a *Attr) syscall.Errno {
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	e = fs.attr(ctx, in, a)
	if e == 0 && a.Nlink == 0 {
		e = syscall.ESTALE
	}
	if e != 0 {
		fs.put(in, 1)
	}
	return e
}

// Forget drops n references that Lookup and similar calls added. The root is never forgotten.
func (fs *FS) Forget(ino, n uint64) {
	if ino == layout.RootIno || n == 0 {
		return
	}
	s := fs.shard(ino)
	s.mu.Lock()
	in := s.m[ino]
	s.mu.Unlock()
	if in != nil {
		fs.put(in, int64(n))
	}
}
