package fstest

import (
	"sort"
	"strings"
	"syscall"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// Ino returns the inode number of a path; that of "" and "/" is the root's.
func (v *Volume) Ino(path string) uint64 {
	v.Helper()
	ino := uint64(layout.RootIno)
	for _, name := range strings.Split(path, "/") {
		if name == "" {
			continue
		}
		var a fs.Attr
		if e := v.FS.Lookup(&v.Ctx, ino, name, &a); e != 0 {
			v.Fatalf("lookup of %q in %q: %v", name, path, e)
		}
		v.FS.Forget(a.Ino, 1)
		ino = a.Ino
	}
	return ino
}

// parent returns the directory of a path and the last name.
func (v *Volume) parent(path string) (dir uint64, name string) {
	v.Helper()
	i := strings.LastIndexByte(path, '/')
	return v.Ino(path[:i]), path[i+1:]
}

// Create makes an empty file.
func (v *Volume) Create(path string) (ino uint64) {
	v.Helper()
	return v.Mknod(path, syscall.S_IFREG|0o644)
}

// Mknod makes a file of any type but a directory, or a special file.
func (v *Volume) Mknod(path string, mode uint32) (ino uint64) {
	v.Helper()
	dir, name := v.parent(path)
	var a fs.Attr
	v.OK(v.FS.Mknod(&v.Ctx, dir, name, mode, 0, &a))
	return a.Ino
}

// Mkdir makes a directory.
func (v *Volume) Mkdir(path string) (ino uint64) {
	v.Helper()
	dir, name := v.parent(path)
	var a fs.Attr
	v.OK(v.FS.Mkdir(&v.Ctx, dir, name, 0o755, &a))
	return a.Ino
}

// Symlink makes a symbolic link.
func (v *Volume) Symlink(path, target string) (ino uint64) {
	v.Helper()
	dir, name := v.parent(path)
	var a fs.Attr
	v.OK(v.FS.Symlink(&v.Ctx, dir, name, target, &a))
	return a.Ino
}

// Link gives a file another name.
func (v *Volume) Link(ino uint64, path string) {
	v.Helper()
	dir, name := v.parent(path)
	v.OK(v.FS.Link(&v.Ctx, ino, dir, name, new(fs.Attr)))
}

// Unlink removes the name of a file; the file stays until its references are forgotten.
func (v *Volume) Unlink(path string) {
	v.Helper()
	dir, name := v.parent(path)
	v.OK(v.FS.Unlink(&v.Ctx, dir, name))
}

// Delete removes a file: its name, and one reference to its inode.
func (v *Volume) Delete(path string) {
	v.Helper()
	ino := v.Ino(path)
	v.Unlink(path)
	v.FS.Forget(ino, 1)
}

// Rmdir removes an empty directory.
func (v *Volume) Rmdir(path string) {
	v.Helper()
	dir, name := v.parent(path)
	v.OK(v.FS.Rmdir(&v.Ctx, dir, name))
}

// Names returns a directory's names, with "." and "..", sorted.
func (v *Volume) Names(dir uint64) (names []string) {
	v.Helper()
	v.OK(v.FS.ReadDir(&v.Ctx, dir, 0, func(d *fs.Dirent) bool {
		names = append(names, string(d.Name))
		return true
	}))
	sort.Strings(names)
	return names
}

// RemoveAll removes all files and directories in a directory.
func (v *Volume) RemoveAll(dir uint64) {
	v.Helper()
	for _, name := range v.Names(dir) {
		if name == "." || name == ".." {
			continue
		}
		var a fs.Attr
		v.OK(v.FS.Lookup(&v.Ctx, dir, name, &a))
		if a.Mode&syscall.S_IFMT == syscall.S_IFDIR {
			v.RemoveAll(a.Ino)
			v.OK(v.FS.Rmdir(&v.Ctx, dir, name))
		} else {
			v.OK(v.FS.Unlink(&v.Ctx, dir, name))
		}
		v.FS.Forget(a.Ino, 1)
	}
}
