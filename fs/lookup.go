package fs

import (
	"strings"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// checkName refuses what cannot be a directory entry's name.
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

// dtype is the DT_* of a mode.
func dtype(mode uint32) uint8 { return uint8(mode >> 12 & 15) }

// Lookup finds a name in a directory and adds a reference to what it names, to be
// given back with Forget. "." and ".." are answered too.
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
	if e := fs.attr(ctx, in, a); e != 0 { // without d's lock
		fs.put(in, 1)
		return e
	}
	return 0
}

// lookupChild returns what a name of d leads to, with one more reference.
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

// RefEntry is Ref of what an entry leads to, for the function that ReadDir calls. ESTALE also if it
// has moved meanwhile.
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

// Ref adds a reference to an inode by number and fills a; ESTALE if there is none, or if it has
// lost its last name: a kernel asks by number only for what nobody has open, and what it told us to
// forget may be on its way.
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

// Forget gives n references of Lookup and its like back.
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
