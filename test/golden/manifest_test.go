package golden

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/hugepage"
)

// facts returns the lines of a manifest that come from fsck, before the region is mounted.
func facts(r *fsck.Report) string {
	return fmt.Sprintf("fsck: clean %v, free map %v, journal records %d, orphans %d, interrupted truncations %d, bad blocks %d\n"+
		"fsck: files %d, directories %d, symlinks %d, special %d\n",
		r.Clean, r.FreeMap, r.JournalRecords, r.Orphans, r.Truncations, r.BadBlocks,
		r.Files, r.Dirs, r.Symlinks, r.Special)
}

// lister writes the lines of a manifest that come from a mount: for each name, in order, its
// attributes, and below them its extended attributes and its extents, without their positions in
// the region. The form of these lines never changes: anything that a later version adds goes into
// lines of another kind.
type lister struct {
	t   *testing.T
	f   *fs.FS
	ctx fs.Caller
	b   strings.Builder
}

// tree returns the lines of the whole tree of f.
func tree(t *testing.T, f *fs.FS) string {
	l := &lister{t: t, f: f}
	l.list("", 1)
	return l.b.String()
}

func (l *lister) ok(what string, e syscall.Errno) {
	l.t.Helper()
	if e != 0 {
		l.t.Fatalf("%s: %v", what, e)
	}
}

// list writes the lines of an inode named path, and of everything below it.
func (l *lister) list(path string, ino uint64) {
	var a fs.Attr
	l.ok(path, l.f.GetAttr(&l.ctx, ino, &a))
	name := path
	if path == "" {
		name = "/"
	}
	fmt.Fprintf(&l.b, "%q mode %o owner %d:%d links %d size %d inode %d.%d\n", name, a.Mode, a.UID, a.GID, a.Nlink, a.Size, a.Ino, a.Gen)
	if a.Rdev != 0 {
		fmt.Fprintf(&l.b, "  rdev %d\n", a.Rdev)
	}
	if a.Flags != 0 || a.Proj != 0 {
		fmt.Fprintf(&l.b, "  flags %#x project %d\n", a.Flags, a.Proj)
	}
	if a.Atime != clock || a.Mtime != clock || a.Ctime != clock || a.Btime != clock {
		fmt.Fprintf(&l.b, "  times %d %d %d %d\n", a.Atime, a.Mtime, a.Ctime, a.Btime)
	}
	l.xattrs(path, ino)
	switch a.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		l.content(path, ino, int(a.Size))
	case syscall.S_IFLNK:
		target, e := l.f.Readlink(&l.ctx, ino, make([]byte, 4096))
		l.ok(path, e)
		fmt.Fprintf(&l.b, "  target %q\n", target)
	case syscall.S_IFDIR:
		l.directory(path, ino)
	}
}

// directory lists the entries of a directory by name.
func (l *lister) directory(path string, ino uint64) {
	type entry struct {
		name string
		ino  uint64
	}
	var all []entry
	l.ok(path, l.f.ReadDir(&l.ctx, ino, 0, func(d *fs.Dirent) bool {
		if n := string(d.Name); n != "." && n != ".." {
			all = append(all, entry{n, d.Ino})
		}
		return true
	}))
	slices.SortFunc(all, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for _, x := range all {
		var a fs.Attr
		l.ok(path+"/"+x.name, l.f.Lookup(&l.ctx, ino, x.name, &a))
		if a.Ino != x.ino {
			l.t.Fatalf("%s/%s: inode %d by Lookup, %d by ReadDir", path, x.name, a.Ino, x.ino)
		}
		l.list(path+"/"+x.name, a.Ino)
		l.f.Forget(a.Ino, 1)
	}
}

// xattrs lists extended attributes by name: short values in full, long ones by their checksum.
func (l *lister) xattrs(path string, ino uint64) {
	names := make([]byte, 64<<10)
	n, e := l.f.ListXattr(&l.ctx, ino, names)
	l.ok(path, e)
	all := strings.Split(strings.TrimSuffix(string(names[:n]), "\x00"), "\x00")
	slices.Sort(all)
	for _, name := range all {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, e := l.f.GetXattr(&l.ctx, ino, name, value)
		l.ok(path+" "+name, e)
		if n <= 64 {
			fmt.Fprintf(&l.b, "  %s %q\n", name, value[:n])
		} else {
			fmt.Fprintf(&l.b, "  %s %d bytes %x\n", name, n, sha256.Sum256(value[:n]))
		}
	}
}

// content writes the checksum of a file's bytes, its extents with contiguous ones merged, and the
// order of the largest folio that its extents have room for.
func (l *lister) content(path string, ino uint64, size int) {
	if size > 0 {
		fmt.Fprintf(&l.b, "  sha256 %x\n", l.checksum(path, ino, size))
	}
	var order uint8
	sb := l.f.Super()
	orders := hugepage.Orders{PMD: sb.ChunkShift - 12, PUD: sb.PUDShift - 12}
	var all []fs.ExtentInfo
	l.ok(path, l.f.Extents(&l.ctx, ino, 0, func(x fs.ExtentInfo) bool {
		order = max(order, orders.Within(x.Logical, x.Block, x.Len))
		if n := len(all) - 1; n >= 0 && all[n].Logical+all[n].Len == x.Logical && all[n].Unwritten == x.Unwritten && all[n].Shared == x.Shared {
			all[n].Len += x.Len
		} else {
			all = append(all, x)
		}
		return true
	}))
	for _, x := range all {
		fmt.Fprintf(&l.b, "  blocks %d+%d", x.Logical, x.Len)
		if x.Unwritten {
			l.b.WriteString(" unwritten")
		}
		if x.Shared {
			l.b.WriteString(" shared")
		}
		l.b.WriteString("\n")
	}
	if order > 0 {
		fmt.Fprintf(&l.b, "  folio of order %d\n", order)
	}
}

// checksum returns the checksum of a file of size bytes.
func (l *lister) checksum(path string, ino uint64, size int) []byte {
	h := sha256.New()
	pin := l.f.NewPinnedRead()
	defer pin.Free()
	for off := 0; off < size; {
		l.ok(path, l.f.Read(&l.ctx, ino, int64(off), 1<<20, pin))
		if pin.Len() == 0 {
			l.t.Fatalf("%s: the file ends at %d, its size is %d", path, off, size)
		}
		off += pin.Len()
		for _, b := range pin.Slices() {
			h.Write(b)
		}
		pin.Done()
	}
	return h.Sum(nil)
}
