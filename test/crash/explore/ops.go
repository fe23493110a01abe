package explore

import (
	"encoding/binary"
	"fmt"
	"maps"
	"strings"
	"syscall"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// fallocate calls fallocate(2) on the filesystem and the model.
func (w *world) fallocate(path string, mode uint32, off, n int64) {
	f := w.regular(path)
	if w.f != nil {
		must("fallocate "+path, w.f.Fallocate(&w.ctx, f.ino, mode, off, n))
	}
	size := int64(len(f.data))
	if mode&fs.FallocKeepSize == 0 {
		size = max(size, off+n)
	}
	d := make([]byte, size)
	copy(d, f.data)
	if mode&(fs.FallocPunchHole|fs.FallocZeroRange) != 0 && off < size {
		clear(d[off:min(size, off+n)])
		f.heal(func(lo, hi int64) bool { return off > lo || off+n < hi })
	}
	f.data = d
}

const (
	keep  = fs.FallocKeepSize
	punch = fs.FallocPunchHole | fs.FallocKeepSize
	zero  = fs.FallocZeroRange
)

// falloc returns a workload of one fallocate after a further set-up. Zeroing in place may be torn
// by words, unless only whole blocks change.
func falloc(name string, setup func(w *world), path string, mode uint32, off, n int64) Workload {
	return Workload{Name: name, setup: func(w *world) { tree(w); setup(w) }, op: func(w *world) {
		w.do(name, func() { w.fallocate(path, mode, off, n) })
		if (off|n)%4096 != 0 && mode&(fs.FallocPunchHole|fs.FallocZeroRange) != 0 {
			w.torn(path)
		}
	}}
}

// into returns a workload of one write of n bytes after a further set-up.
func into(name string, setup func(w *world), path string, off int64, n int) Workload {
	return Workload{Name: name, setup: func(w *world) { tree(w); setup(w) },
		op: func(w *world) { w.doWrite(name, path, off, fill(90, n)) }}
}

// setxattr sets an extended attribute in the filesystem and the model.
func (w *world) setxattr(path, name string, value []byte) {
	f := w.at(path)
	if w.f != nil {
		must("setxattr "+path, w.f.SetXattr(&w.ctx, f.ino, name, value, 0))
	}
	x := maps.Clone(f.xattrs)
	if x == nil {
		x = map[string]string{}
	}
	x[name] = string(value)
	f.xattrs = x
}

// aclOf returns an access control list with n users, in the format of the extended attribute:
// u::rwx, u:1000:rw- and so on, g::r-x, m::rwx, o::r--.
func aclOf(n int) []byte {
	b := []byte{2, 0, 0, 0}
	entry := func(tag, perm uint16, id uint32) {
		b = binary.LittleEndian.AppendUint16(b, tag)
		b = binary.LittleEndian.AppendUint16(b, perm)
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	const none = 1<<32 - 1
	entry(0x01, 7, none)
	for i := range n {
		entry(0x02, 6, uint32(1000+i))
	}
	entry(0x04, 5, none)
	if n > 0 {
		entry(0x10, 7, none)
	}
	entry(0x20, 4, none)
	return b
}

// Names of the extended attributes that hold access control lists.
const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
)

// chattr sets inode flags in the filesystem and the model.
func (w *world) chattr(path string, flags uint32) {
	n := w.at(path)
	can(n.isDir() || n.mode&syscall.S_IFMT == syscall.S_IFREG, "%s has no flags", path)
	if w.f != nil {
		must("chattr", w.f.SetFlags(&w.ctx, n.ino, flags, nil))
	}
	n.flags = flags
}

// inDir returns a workload of op on a tree where d has a default access control list with n users.
func inDir(name string, n int, op func(w *world)) Workload {
	return with(name, func(w *world) { w.setxattr("d", aclDefault, aclOf(n)) }, op)
}

// adopt copies an inode's mode and extended attributes from the filesystem to the model.
// fs/acl_test.go judges the rules for them. Here it matters that a crash leaves all or none of the
// change.
func (w *world) adopt(path string) {
	n := w.at(path)
	if w.f == nil {
		return
	}
	var a fs.Attr
	must("getattr", w.f.GetAttr(&w.ctx, n.ino, &a))
	n.mode, n.xattrs = a.Mode, map[string]string{}
	var buf [65536]byte
	k, e := w.f.ListXattr(&w.ctx, n.ino, buf[:])
	must("listxattr", e)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:k]), "\x00"), "\x00") {
		if name != "" {
			k, e := w.f.GetXattr(&w.ctx, n.ino, name, buf[:])
			must("getxattr", e)
			n.xattrs[name] = string(buf[:k])
		}
	}
}

func (w *world) removexattr(path, name string) {
	f := w.at(path)
	if w.f != nil {
		must("removexattr "+path, w.f.RemoveXattr(&w.ctx, f.ino, name))
	}
	f.xattrs = maps.Clone(f.xattrs)
	delete(f.xattrs, name)
}

// attributed gives d/g extended attributes of several sizes.
func attributed(w *world) {
	w.setxattr("d/g", "user.short", []byte("old"))
	w.setxattr("d/g", "user.long", fill(91, 5000))
	w.setxattr("d/g", "security.capability", fill(92, 20))
}

// tmpfile creates a file without a name.
func (w *world) tmpfile(dir string) *node {
	var a fs.Attr
	can(w.at(dir).isDir(), "%s is no directory", dir)
	if w.f != nil {
		must("tmpfile", w.f.Tmpfile(&w.ctx, w.at(dir).ino, 0o600, &a))
	}
	return &node{mode: syscall.S_IFREG | 0o600, uid: w.ctx.UID, gid: w.ctx.GID, ino: a.Ino, refs: 1}
}

// name links a file without a name at path.
func (w *world) name(n *node, path string) {
	d, name := w.free(path)
	var a fs.Attr
	if w.f != nil {
		must("link", w.f.Link(&w.ctx, n.ino, d.ino, name, &a))
	}
	n.nlink, n.refs = 1, n.refs+1
	d.kids[name] = n
}

// clone calls copy_file_range(2) on the filesystem and the model. Offsets and n are in bytes.
func (w *world) clone(src string, srcOff int64, dst string, dstOff, n int64) {
	s, d := w.regular(src), w.regular(dst)
	can(srcOff+n <= int64(len(s.data)), "%s is too short", src)
	if w.f != nil {
		m, e := w.f.CopyRange(&w.ctx, s.ino, srcOff, d.ino, dstOff, n)
		must("copy_file_range "+dst, e)
		if m != n {
			panic(fmt.Sprintf("copy_file_range copied %d of %d bytes", m, n))
		}
	}
	data := make([]byte, max(int64(len(d.data)), dstOff+n))
	copy(data, d.data)
	copy(data[dstOff:], s.data[srcOff:srcOff+n])
	d.data = data
}

// cloned makes e/h a clone of 24 blocks of f, which has 100 000 bytes.
func cloned(w *world) {
	w.write("f", 0, fill(120, 100000))
	w.clone("f", 0, "e/h", 0, 24*4096)
}

// append extends path to the size to, in writes of piece bytes, so that it grows into a
// reservation.
func (w *world) append(path string, to, piece int64) {
	for off := int64(len(w.at(path).data)); off < to; off += piece {
		w.write(path, off, fill(int(off/piece), int(min(piece, to-off))))
	}
}

// crowded makes d/big a file of 256 KiB. Other files have blocks in its reservation.
func crowded(w *world) {
	for i, n := range []int{3, 3, 1} { // fill the PMD block of small files
		pad := fmt.Sprintf("e/pad%d", i)
		w.create(pad)
		w.write(pad, 0, fill(107+i, n*4096))
	}
	w.create("d/big")
	for i, name := range []string{"e/s0", "e/s1", "e/s2"} {
		w.append("d/big", int64(40000*(i+1)), 8000)
		if w.f != nil {
			w.unmount() // a mount does not know reservations
			w.mount()
		}
		w.create(name)
		w.write(name, 0, fill(110+i, 9000))
	}
	w.append("d/big", 1<<18, 8000)
}

// sparse creates 200 small files and deletes seven of eight.
func sparse(w *world) {
	for i := range 200 {
		name := fmt.Sprintf("empty/f%d", i)
		w.create(name)
		w.write(name, 0, fill(i, 4096))
	}
	for i := range 200 {
		if i%8 != 3 {
			w.unlink(fmt.Sprintf("empty/f%d", i))
		}
	}
}

// compact runs a step of compaction, which must move something.
func (w *world) compact() {
	c, e := w.f.Compact(&w.ctx)
	must("compact", e)
	if c.Moved == 0 {
		panic("compaction moves nothing: the workload shows nothing")
	}
}

// allocationWorkloads returns workloads of fallocate, collapse, compaction, clones, extended
// attributes and files without a name.
func allocationWorkloads() []Workload {
	prealloc := func(w *world) { w.fallocate("e/h", 0, 0, 200000) }
	var tmp *node
	list := []Workload{
		falloc("fallocate", none, "e/h", 0, 0, 50000),
		falloc("fallocate-grow", none, "f", 0, 9000, 50000),
		falloc("fallocate-grow-same-block", none, "d/g", 0, 0, 4000),
		falloc("fallocate-keep-size", none, "f", keep, 0, 100000),
		falloc("fallocate-holes", func(w *world) { fragmented(w, "frag", 12) }, "frag", 0, 0, 24*4096),
		falloc("fallocate-many", func(w *world) { fragmented(w, "frag", 60) }, "frag", keep, 0, 120*4096),
		falloc("punch", none, "f", punch, 4096, 4096),
		falloc("punch-unaligned", none, "f", punch, 100, 6000),
		falloc("punch-within-block", none, "f", punch, 100, 50),
		falloc("punch-all", none, "f", punch, 0, 12288),
		falloc("punch-middle", func(w *world) { w.write("f", 0, fill(93, 100000)) }, "f", punch, 40960, 8192),
		falloc("punch-unwritten", prealloc, "e/h", punch, 8192, 40960),
		falloc("punch-fragmented", func(w *world) { fragmented(w, "frag", 20) }, "frag", punch, 8192, 10*8192),
		falloc("zero-range", none, "f", zero, 4096, 4096),
		falloc("zero-range-unaligned", none, "f", zero, 100, 6000),
		falloc("zero-range-grow", none, "f", zero, 4096, 40960),
		falloc("zero-range-hole", func(w *world) { w.truncate("f", 60000) }, "f", zero|keep, 8192, 40960),
		into("write-unwritten", prealloc, "e/h", 0, 100),
		into("write-unwritten-middle", prealloc, "e/h", 50001, 9000),
		into("write-unwritten-all", prealloc, "e/h", 0, 200000),
		into("write-unwritten-next", func(w *world) { prealloc(w); w.write("e/h", 0, fill(94, 8192)) }, "e/h", 8192, 5000),
		into("write-unwritten-before", func(w *world) { prealloc(w); w.write("e/h", 8192, fill(94, 8192)) }, "e/h", 4096, 4096),
		into("write-beyond-eof-unwritten", func(w *world) { w.fallocate("d/g", keep, 0, 100000) }, "d/g", 20000, 3000),
		with("truncate-unwritten", prealloc, func(w *world) { w.truncate("e/h", 10000) }),
		with("truncate-up-over-unwritten", func(w *world) { w.fallocate("d/g", keep, 0, 100000) }, func(w *world) { w.truncate("d/g", 50000) }),

		into("collapse", func(w *world) { w.create("d/new"); w.append("d/new", 28000, 3000) }, "d/new", 28000, 8000),
		into("collapse-crowded", func(w *world) { crowded(w); w.truncate("d/big", 20000) }, "d/big", 20000, 20000),
		with("compact", crowded, (*world).compact),
		with("compact-sparse", sparse, (*world).compact),

		with("clone", func(w *world) { w.write("f", 0, fill(120, 100000)) }, func(w *world) { w.clone("f", 0, "e/h", 0, 24*4096) }),
		with("clone-over", func(w *world) { w.write("f", 0, fill(120, 100000)) }, func(w *world) { w.clone("f", 8192, "d/g", 4096, 40960) }),
		with("clone-within", func(w *world) { w.write("f", 0, fill(120, 100000)) }, func(w *world) { w.clone("f", 0, "f", 110592, 40960) }),
		with("clone-again", cloned, func(w *world) { w.clone("e/h", 0, "f", 110592, 40960) }),
		into("clone-write", cloned, "e/h", 40000, 5000),
		into("clone-write-source", cloned, "f", 4096, 4096),
		into("clone-append", cloned, "e/h", 24*4096, 3000),
		with("clone-truncate", cloned, func(w *world) { w.truncate("e/h", 30000) }),
		with("clone-truncate-up", func(w *world) { cloned(w); w.truncate("e/h", 30000) }, func(w *world) { w.truncate("e/h", 60000) }),
		falloc("clone-punch", cloned, "f", punch, 40960, 8192),
		falloc("clone-punch-unaligned", cloned, "f", punch, 40000, 6000),
		falloc("clone-zero", cloned, "e/h", zero, 8192, 16384),
		with("clone-unlink", cloned, func(w *world) { w.unlink("e/h") }),

		one("setxattr", func(w *world) { w.setxattr("d/g", "user.a", []byte("value")) }),
		one("setxattr-long", func(w *world) { w.setxattr("d/g", "user.a", fill(95, 9000)) }),
		one("chattr", func(w *world) { w.chattr("d/g", layout.FlagNoDump|layout.FlagNoAtime) }),
		one("setxattr-acl", func(w *world) { w.setxattr("d/g", aclAccess, aclOf(1)); w.adopt("d/g") }),
		with("setxattr-acl-minimal", func(w *world) { w.setxattr("d/g", aclAccess, aclOf(1)); w.adopt("d/g") },
			func(w *world) { w.setxattr("d/g", aclAccess, aclOf(0)); w.adopt("d/g") }),
		with("chmod-acl", func(w *world) { w.setxattr("d/g", aclAccess, aclOf(2)); w.adopt("d/g") },
			func(w *world) { w.chmod("d/g", 0o640); w.adopt("d/g") }),
		with("chmod-acl-long", func(w *world) { w.setxattr("d/g", aclAccess, aclOf(300)); w.adopt("d/g") },
			func(w *world) { w.chmod("d/g", 0o600); w.adopt("d/g") }),
		inDir("create-acl", 1, func(w *world) { w.create("d/new"); w.adopt("d/new") }),
		inDir("mkdir-acl", 1, func(w *world) { w.mkdir("d/newdir"); w.adopt("d/newdir") }),
		inDir("mkdir-acl-long", 300, func(w *world) { w.mkdir("d/newdir"); w.adopt("d/newdir") }),
		one("setxattr-dir", func(w *world) { w.setxattr("d", "user.a", []byte("value")) }),
		one("setxattr-symlink", func(w *world) { w.setxattr("s", "trusted.a", []byte("value")) }),
		with("setxattr-replace", attributed, func(w *world) { w.setxattr("d/g", "user.short", []byte("new")) }),
		with("setxattr-replace-long", attributed, func(w *world) { w.setxattr("d/g", "user.long", fill(96, 6000)) }),
		with("setxattr-more-blocks", func(w *world) {
			attributed(w)
			w.setxattr("d/g", "user.1", fill(97, 1000))
			w.setxattr("d/g", "user.2", fill(98, 1000))
		}, func(w *world) { w.setxattr("d/g", "user.3", fill(99, 1000)) }),
		with("removexattr", attributed, func(w *world) { w.removexattr("d/g", "user.long") }),
		with("removexattr-last", func(w *world) { w.setxattr("d/g", "user.a", fill(95, 5000)) }, func(w *world) { w.removexattr("d/g", "user.a") }),
		with("unlink-attributed", attributed, func(w *world) { w.unlink("d/g") }),

		one("tmpfile", func(w *world) { w.tmpfile("d") }),
		with("tmpfile-link", func(w *world) { tmp = w.tmpfile("d") }, func(w *world) {
			w.name(tmp, "d/named")
		}),
	}
	return list
}
