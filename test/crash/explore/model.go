package explore

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"syscall"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// node is an inode of the model.
type node struct {
	mode, uid, gid, rdev, nlink, flags uint32

	data   []byte
	target string
	kids   map[string]*node
	xattrs map[string]string // the map is replaced, never changed

	mtimes []int64 // allowed values of mtime, in ns; nil: not judged

	lost map[int64]bool // file blocks whose memory is bad; the map is replaced, never changed

	// A write under way: was is the content before the write, and each aligned 8-byte word may
	// still be that of was instead of data.
	was      []byte
	wasLost  map[int64]bool
	inflight bool

	ino  uint64 // inode number in the filesystem under test
	refs uint64 // lookup references not yet given back
	open bool   // the last reference is kept when the last name is removed
}

func (n *node) isDir() bool { return n.mode&syscall.S_IFMT == syscall.S_IFDIR }

func newTree() *node {
	return &node{mode: syscall.S_IFDIR | 0o755, nlink: 2, kids: map[string]*node{}, ino: layout.RootIno}
}

// clone returns a copy of the tree. Hard links stay links; contents are shared.
func (n *node) clone() *node { return n.cloneInto(map[*node]*node{}) }

func (n *node) cloneInto(done map[*node]*node) *node {
	if c := done[n]; c != nil {
		return c
	}
	c := new(node)
	*c = *n
	done[n] = c
	if n.kids != nil {
		c.kids = make(map[string]*node, len(n.kids))
		for k, v := range n.kids {
			c.kids[k] = v.cloneInto(done)
		}
	}
	return c
}

// find returns the node at a path, given as its components; nil if there is none.
func (n *node) find(path []string) *node {
	for _, p := range path {
		if n == nil || n.kids == nil {
			return nil
		}
		n = n.kids[p]
	}
	return n
}

func (n *node) names() []string {
	ks := make([]string, 0, len(n.kids))
	for k := range n.kids {
		ks = append(ks, k)
	}
	sort.Strings(ks)
	return ks
}

// same reports whether two trees look the same from outside.
func same(a, b *node) bool { return sameInto(a, b, map[*node]*node{}, map[*node]*node{}) }

func sameInto(a, b *node, ab, ba map[*node]*node) bool {
	if ab[a] != nil || ba[b] != nil {
		return ab[a] == b && ba[b] == a
	}
	ab[a], ba[b] = b, a
	if a.mode != b.mode || a.uid != b.uid || a.gid != b.gid || a.rdev != b.rdev || a.nlink != b.nlink || a.flags != b.flags ||
		a.target != b.target || !bytes.Equal(a.data, b.data) || !maps.Equal(a.xattrs, b.xattrs) || !maps.Equal(a.lost, b.lost) || len(a.kids) != len(b.kids) {
		return false
	}
	for k, v := range a.kids {
		if w := b.kids[k]; w == nil || !sameInto(v, w, ab, ba) {
			return false
		}
	}
	return true
}

// matcher compares a mounted filesystem with a model.
type matcher struct {
	f     *fs.FS
	ctx   fs.Caller
	toIno map[*node]uint64
	toN   map[uint64]*node
	pin   *fs.PinnedRead
	buf   [4 << 10]byte // names and values of extended attributes
}

// match returns how the filesystem differs from the model; "" if they are equal.
func match(f *fs.FS, root *node) string {
	m := matcher{f: f, pin: f.NewPinnedRead(), toIno: map[*node]uint64{root: layout.RootIno}, toN: map[uint64]*node{layout.RootIno: root}}
	var a fs.Attr
	if e := f.GetAttr(&m.ctx, layout.RootIno, &a); e != 0 {
		return fmt.Sprintf("getattr of the root: %v", e)
	}
	defer m.pin.Free()
	return m.node("/", root, &a)
}

func (m *matcher) node(path string, n *node, a *fs.Attr) string {
	if a.Mode != n.mode || a.UID != n.uid || a.GID != n.gid || a.Nlink != n.nlink || a.Rdev != n.rdev {
		return fmt.Sprintf("%s: mode %#o uid %d gid %d nlink %d rdev %d, expected %#o %d %d %d %d", path, a.Mode, a.UID, a.GID, a.Nlink, a.Rdev, n.mode, n.uid, n.gid, n.nlink, n.rdev)
	}
	if a.Flags != n.flags {
		return fmt.Sprintf("%s: flags %#x, expected %#x", path, a.Flags, n.flags)
	}
	if n.mtimes != nil && !slices.Contains(n.mtimes, a.Mtime) {
		return fmt.Sprintf("%s: mtime is %d, expected one of %d", path, a.Mtime, n.mtimes)
	}
	if s := m.xattrs(path, n, a.Ino); s != "" {
		return s
	}
	switch n.mode & syscall.S_IFMT {
	case syscall.S_IFDIR:
		return m.dir(path, n, a.Ino)
	case syscall.S_IFREG:
		return m.file(path, n, a)
	case syscall.S_IFLNK:
		t, e := m.f.Readlink(&m.ctx, a.Ino, nil)
		if e != 0 || string(t) != n.target || a.Size != uint64(len(n.target)) {
			return fmt.Sprintf("%s: readlink says %.60q (%v), size %d, expected %.60q", path, t, e, a.Size, n.target)
		}
	}
	return ""
}

func (m *matcher) xattrs(path string, n *node, ino uint64) string {
	buf := m.buf[:]
	if len(n.xattrs) > 0 {
		buf = make([]byte, 64<<10)
	}
	k, e := m.f.ListXattr(&m.ctx, ino, buf)
	if e != 0 {
		return fmt.Sprintf("%s: listxattr: %v", path, e)
	}
	var names []string
	if k > 0 {
		names = strings.Split(string(buf[:k-1]), "\x00")
	}
	if len(names) != len(n.xattrs) {
		return fmt.Sprintf("%s: has the attributes %q, expected %d", path, names, len(n.xattrs))
	}
	for _, name := range names {
		k, e := m.f.GetXattr(&m.ctx, ino, name, buf)
		if want, ok := n.xattrs[name]; e != 0 || !ok || string(buf[:k]) != want {
			return fmt.Sprintf("%s: attribute %s is %.20q (%v), expected %.20q", path, name, buf[:k], e, want)
		}
	}
	return ""
}

func (m *matcher) dir(path string, n *node, ino uint64) string {
	type entry struct {
		name string
		ino  uint64
		typ  uint8
	}
	var list []entry
	errno := m.f.ReadDir(&m.ctx, ino, 0, func(dirent *fs.Dirent) bool {
		if name := string(dirent.Name); name != "." && name != ".." {
			list = append(list, entry{name, dirent.Ino, dirent.Type})
		}
		return true
	})
	if errno != 0 {
		return fmt.Sprintf("%s: readdir: %v", path, errno)
	}
	for _, found := range list {
		kid := n.kids[found.name]
		if kid == nil {
			return fmt.Sprintf("%s: has the entry %.40q, expected none", path, found.name)
		}
		var attr fs.Attr
		if lookupErr := m.f.Lookup(&m.ctx, ino, found.name, &attr); lookupErr != 0 {
			return fmt.Sprintf("%s/%.40s: lookup: %v", path, found.name, lookupErr)
		}
		why := ""
		if attr.Ino != found.ino || uint32(found.typ) != attr.Mode>>12 {
			why = fmt.Sprintf("%s/%.40s: readdir says inode %d type %d, lookup says inode %d mode %#o", path, found.name, found.ino, found.typ, attr.Ino, attr.Mode)
		} else if was, ok := m.toIno[kid]; ok && was != attr.Ino || m.toN[attr.Ino] != nil && m.toN[attr.Ino] != kid {
			why = fmt.Sprintf("%s/%.40s: is inode %d, but another name of the same file is not, or one of another file is", path, found.name, attr.Ino)
		} else if !ok { // otherwise another name of an inode that was compared already
			m.toIno[kid], m.toN[attr.Ino] = attr.Ino, kid
			why = m.node(path+"/"+short(found.name), kid, &attr)
		}
		m.f.Forget(attr.Ino, 1)
		if why != "" {
			return why
		}
	}
	if len(list) != len(n.kids) {
		for _, found := range list {
			if _, ok := n.kids[found.name]; !ok {
				return fmt.Sprintf("%s: has the entry %.40q, expected none", path, found.name)
			}
		}
		have := map[string]bool{}
		for _, found := range list {
			have[found.name] = true
		}
		for _, name := range n.names() {
			if !have[name] {
				return fmt.Sprintf("%s: lacks the entry %.40q", path, name)
			}
		}
		return fmt.Sprintf("%s: has an entry twice", path)
	}
	return ""
}

func short(s string) string {
	if len(s) > 40 {
		return s[:37] + "..."
	}
	return s
}

func (m *matcher) file(path string, n *node, a *fs.Attr) string {
	lo, hi := len(n.data), len(n.data)
	if n.inflight {
		lo, hi = min(lo, len(n.was)), max(hi, len(n.was))
	}
	if a.Size < uint64(lo) || a.Size > uint64(hi) {
		return fmt.Sprintf("%s: size is %d, expected %d to %d", path, a.Size, lo, hi)
	}
	step := 256 << 10
	if len(n.lost)+len(n.wasLost) > 0 {
		step = layout.BlockSize
	}
	for off := int64(0); off < int64(a.Size); {
		may, must := n.lacks(off >> layout.BlockShift)
		if e := m.f.Read(&m.ctx, a.Ino, off, step, m.pin); e == syscall.EIO && may {
			off += int64(step)
			continue
		} else if e != 0 {
			return fmt.Sprintf("%s: read at %d: %v", path, off, e)
		} else if must {
			m.pin.Done()
			return fmt.Sprintf("%s: the block at %d is lost, but can be read", path, off)
		}
		got := m.pin.Len()
		for _, s := range m.pin.Slices() {
			if why := n.compare(off, s); why != "" {
				m.pin.Done()
				return path + ": " + why
			}
			off += int64(len(s))
		}
		m.pin.Done()
		if got == 0 {
			return fmt.Sprintf("%s: read at %d gave nothing, size is %d", path, off, a.Size)
		}
	}
	return ""
}

// compare returns how the bytes got, read at byte off, differ from those allowed; "" if they do
// not.
func (n *node) compare(off int64, got []byte) string {
	want := tail(n.data, off, len(got))
	if !n.inflight && bytes.Equal(want, got) || n.inflight && len(want) == len(got) && bytes.Equal(want, got) {
		return ""
	}
	old := tail(n.was, off, len(got))
	for i := 0; i < len(got); {
		// The rest of the aligned word. It is old or new as a whole where the file had it before
		// and has it after.
		k := min(8-int(off+int64(i))%8, len(got)-i)
		w := got[i : i+k]
		switch {
		case i+k <= len(want) && bytes.Equal(w, want[i:i+k]):
		case n.inflight && i+k <= len(old) && bytes.Equal(w, old[i:i+k]):
		case n.inflight && mixed(w, cut(old, i, k), cut(want, i, k)):
		default:
			return fmt.Sprintf("bytes at %d are %x, expected %x%s", off+int64(i), w, cut(want, i, k), n.orOld(old, i, k))
		}
		i += k
	}
	return ""
}

// mixed reports whether each byte of a word is old or new. This is allowed only in a word that is
// not whole: at the end of the old or the new file.
func mixed(w, old, now []byte) bool {
	if len(old) == len(w) && len(now) == len(w) {
		return false
	}
	for i, b := range w {
		if !(i < len(old) && old[i] == b || i < len(now) && now[i] == b) {
			return false
		}
	}
	return true
}

func (n *node) orOld(old []byte, i, k int) string {
	if !n.inflight {
		return ""
	}
	return fmt.Sprintf(" or %x", cut(old, i, k))
}

func tail(b []byte, off int64, n int) []byte {
	if off >= int64(len(b)) {
		return nil
	}
	return b[off:min(int64(len(b)), off+int64(n))]
}

func cut(b []byte, i, k int) []byte {
	if i >= len(b) {
		return nil
	}
	return b[i:min(len(b), i+k)]
}
