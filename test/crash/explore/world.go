package explore

import (
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/lease"
	"github.com/daxfsd/daxfsd/pmem"
)

// regionSize is the size of the regions that are crashed.
const regionSize = 16 << 20

func mkfsOptions() fs.MkfsOptions {
	return fs.MkfsOptions{Label: "crash", UUID: [16]byte{0xda, 0xf5, 1}, ChunkShift: 15, PUDShift: 18, Lanes: 2, Now: 1e18}
}

// world is a filesystem under test and the model of what it should hold. Its methods
// do the same to both; they panic if the filesystem disagrees about the outcome, which
// the runner reports as a failure of the workload itself.
//
// It keeps a lookup reference for every inode it knows, as the kernel does. Without a
// filesystem (f is nil) only the model changes.
type world struct {
	r    *pmem.Region
	f    *fs.FS
	root *node
	ctx  fs.Caller
	now  atomic.Int64
	rec  *recorder
	full bool // a write may be cut short

	result syscall.Errno // of the operation under way, if it was refused

	held []*node // files that have no name any more and are open

	atomic bool        // each write is all or nothing
	locks  *lease.Fake // those of programs that map files; nil: mounts make no grants

	steps []step
}

// step is one operation of the filesystem: what the tree was before it and is after.
type step struct {
	name     string
	result   syscall.Errno
	old, new *node
	mid      *node                 // a write under way; nil: old or new, nothing else
	alts     []alt                 // operations at once: what may be left of them, instead of old and new
	equal    bool                  // old and new look the same
	clean    bool                  // unmount: the owner record says so when it has returned
	full     bool                  // the file filler takes all space
	repair   bool                  // fsck -y: old is damaged, and has to be repaired
	damage   map[fsck.Problem]bool // fsck -y: what it found, without What
	format   bool                  // mkfs: it may be no filesystem until it returns
}

func (w *world) clock() int64 { return w.now.Add(1000) }

func (w *world) mount() {
	o := fs.Options{Clock: w.clock, Atomic: w.atomic}
	if w.locks != nil {
		o.Direct, o.Locks = fs.DirectWrite, w.locks
	}
	f, err := fs.Mount(w.r, o)
	if err != nil {
		panic(fmt.Sprintf("mount: %v", err))
	}
	w.f = f
}

func (w *world) unmount() {
	if err := w.f.Unmount(); err != nil {
		panic(fmt.Sprintf("unmount: %v", err))
	}
	w.f = nil
	w.root.all(func(n *node) { n.refs = 0 })
}

// all calls f for each node once.
func (n *node) all(f func(*node)) {
	seen := map[*node]bool{}
	var walk func(*node)
	walk = func(n *node) {
		if seen[n] {
			return
		}
		seen[n] = true
		f(n)
		for _, k := range n.kids {
			walk(k)
		}
	}
	walk(n)
}

// do runs op as a step of its own.
func (w *world) do(name string, op func()) {
	s := step{name: name, old: w.root.clone()}
	w.rec.mark(evBegin, len(w.steps))
	w.result = 0
	op()
	s.result = w.result
	w.rec.mark(evEnd, len(w.steps))
	s.new = w.root.clone()
	s.equal = same(s.old, s.new)
	w.steps = append(w.steps, s)
}

// called is the step's name, and what it returned if that was no success.
func (s *step) called() string {
	if s.result == 0 {
		return s.name
	}
	return fmt.Sprintf("%s (%v)", s.name, s.result)
}

// refused is what a world panics with when the filesystem says no.
type refused struct {
	what string
	e    syscall.Errno
}

func (r refused) Error() string { return fmt.Sprintf("%s: %v", r.what, r.e) }

func must(what string, e syscall.Errno) {
	if e != 0 {
		panic(refused{what, e})
	}
}

// impossible is what a world panics with when an operation makes no sense on its tree.
type impossible string

// can panics unless ok.
func can(ok bool, format string, a ...any) {
	if !ok {
		panic(impossible(fmt.Sprintf(format, a...)))
	}
}

// noSpace calls op, and reports whether it was refused for want of space; then the model is
// as it was.
func (w *world) noSpace(op func()) (full bool) {
	defer func() {
		p := recover()
		if r, ok := p.(refused); ok && r.e == syscall.ENOSPC {
			full, w.result = true, r.e
		} else if p != nil {
			panic(p)
		}
	}()
	op()
	return false
}

func parts(path string) []string {
	path = strings.Trim(path, "/")
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

// at is the node at path, with a lookup reference on it.
func (w *world) at(path string) *node {
	n := w.root
	for _, p := range parts(path) {
		k := n.kids[p]
		can(k != nil, "no %s", path)
		if k.refs == 0 && w.f != nil {
			var a fs.Attr
			must("lookup "+path, w.f.Lookup(&w.ctx, n.ino, p, &a))
			k.ino, k.refs = a.Ino, 1
		}
		n = k
	}
	return n
}

// in is the parent directory of path and the last name.
func (w *world) in(path string) (*node, string) {
	ps := parts(path)
	d := w.at(strings.Join(ps[:len(ps)-1], "/"))
	can(d.isDir(), "%s has no parent", path)
	return d, ps[len(ps)-1]
}

// free is in for a name that is not there yet.
func (w *world) free(path string) (*node, string) {
	d, name := w.in(path)
	can(d.kids[name] == nil, "%s exists", path)
	return d, name
}

// regular is the file at path.
func (w *world) regular(path string) *node {
	n := w.at(path)
	can(n.mode&syscall.S_IFMT == syscall.S_IFREG, "%s is no file", path)
	return n
}

func (w *world) mknod(path string, mode, rdev uint32) {
	d, name := w.free(path)
	var a fs.Attr
	if w.f != nil {
		must("mknod "+path, w.f.Mknod(&w.ctx, d.ino, name, mode, rdev, &a))
	}
	d.kids[name] = &node{mode: mode, uid: w.ctx.UID, gid: w.ctx.GID, rdev: rdev, nlink: 1, ino: a.Ino, refs: 1}
}

func (w *world) create(path string) { w.mknod(path, syscall.S_IFREG|0o644, 0) }

func (w *world) mkdir(path string) {
	d, name := w.free(path)
	var a fs.Attr
	if w.f != nil {
		must("mkdir "+path, w.f.Mkdir(&w.ctx, d.ino, name, 0o755, &a))
	}
	d.kids[name] = &node{mode: syscall.S_IFDIR | 0o755, uid: w.ctx.UID, gid: w.ctx.GID, nlink: 2, kids: map[string]*node{}, ino: a.Ino, refs: 1}
	d.nlink++
}

func (w *world) symlink(path, target string) {
	d, name := w.free(path)
	var a fs.Attr
	if w.f != nil {
		must("symlink "+path, w.f.Symlink(&w.ctx, d.ino, name, target, &a))
	}
	d.kids[name] = &node{mode: syscall.S_IFLNK | 0o777, uid: w.ctx.UID, gid: w.ctx.GID, nlink: 1, target: target, ino: a.Ino, refs: 1}
}

func (w *world) link(old, path string) {
	n := w.at(old)
	can(!n.isDir(), "%s is a directory", old)
	d, name := w.free(path)
	var a fs.Attr
	if w.f != nil {
		must("link "+path, w.f.Link(&w.ctx, n.ino, d.ino, name, &a))
	}
	d.kids[name] = n
	n.nlink++
	n.refs++
}

// gone takes a name's link off a node; with its last the kernel forgets it, unless
// it is open.
func (w *world) gone(n *node) {
	if n.isDir() {
		n.nlink = 0
	} else {
		n.nlink--
	}
	switch {
	case n.nlink > 0:
	case n.open:
		w.held = append(w.held, n)
	default:
		w.forget(n)
	}
}

func (w *world) forget(n *node) {
	if n.refs > 0 && w.f != nil {
		w.f.Forget(n.ino, n.refs)
	}
	n.refs = 0
}

func (w *world) unlink(path string) {
	d, name := w.in(path)
	n := w.at(path)
	can(!n.isDir(), "%s is a directory", path)
	if w.f != nil {
		must("unlink "+path, w.f.Unlink(&w.ctx, d.ino, name))
	}
	delete(d.kids, name)
	w.gone(n)
}

func (w *world) rmdir(path string) {
	d, name := w.in(path)
	n := w.at(path)
	can(n.isDir() && len(n.kids) == 0, "%s is no empty directory", path)
	if w.f != nil {
		must("rmdir "+path, w.f.Rmdir(&w.ctx, d.ino, name))
	}
	delete(d.kids, name)
	d.nlink--
	w.gone(n)
}

func (w *world) rename(old, path string, flags uint32) {
	od, on := w.in(old)
	nd, nn := w.in(path)
	n := w.at(old)
	var v *node
	if nd.kids[nn] != nil {
		v = w.at(path)
		can(flags&fs.RenameNoReplace == 0, "%s exists", path)
		can(flags&fs.RenameExchange != 0 || n.isDir() == v.isDir() && len(v.kids) == 0, "%s cannot be replaced", path)
	}
	if w.f != nil {
		must("rename "+old+" "+path, w.f.Rename(&w.ctx, od.ino, on, nd.ino, nn, flags))
	}
	if n == v {
		return
	}
	moved := func(x *node, from, to *node) {
		if x.isDir() {
			from.nlink--
			to.nlink++
		}
	}
	if flags&fs.RenameExchange != 0 {
		od.kids[on], nd.kids[nn] = v, n
		moved(n, od, nd)
		moved(v, nd, od)
		return
	}
	delete(od.kids, on)
	if flags&fs.RenameWhiteout != 0 {
		od.kids[on] = &node{mode: syscall.S_IFCHR, uid: w.ctx.UID, gid: w.ctx.GID, nlink: 1}
	}
	nd.kids[nn] = n
	moved(n, od, nd)
	if v != nil {
		if v.isDir() {
			nd.nlink--
		}
		w.gone(v)
	}
}

func (w *world) setattr(path string, s fs.SetAttr) {
	n := w.at(path)
	var a fs.Attr
	if w.f != nil {
		must("setattr "+path, w.f.SetAttr(&w.ctx, n.ino, &s, &a))
	}
	if s.Valid&fs.SetMode != 0 {
		n.mode = n.mode&syscall.S_IFMT | s.Mode&0o7777
	}
	if s.Valid&(fs.SetUID|fs.SetGID|fs.SetKillPriv) != 0 && s.Valid&fs.SetMode == 0 {
		n.mode = fs.KillPriv(n.mode)
	}
	if s.Valid&fs.SetUID != 0 {
		n.uid = s.UID
	}
	if s.Valid&fs.SetGID != 0 {
		n.gid = s.GID
	}
	if s.Valid&fs.SetSize != 0 {
		d := make([]byte, s.Size)
		copy(d, n.data)
		n.data = d
		n.heal(func(lo, _ int64) bool { return lo < int64(s.Size) })
	}
}

func (w *world) chmod(path string, mode uint32) {
	w.setattr(path, fs.SetAttr{Valid: fs.SetMode, Mode: mode})
}

func (w *world) truncate(path string, size uint64) {
	w.regular(path)
	w.setattr(path, fs.SetAttr{Valid: fs.SetSize, Size: size})
}

// write stores b at off.
func (w *world) write(path string, off int64, b []byte) {
	n := w.regular(path)
	if w.f != nil {
		got, e := w.f.Write(&w.ctx, n.ino, off, b)
		must("write "+path, e)
		if got < len(b) && !w.full {
			panic(fmt.Sprintf("write %s: %d of %d bytes", path, got, len(b)))
		}
		b = b[:got]
	}
	d := make([]byte, max(len(n.data), int(off)+len(b)))
	copy(d, n.data)
	copy(d[off:], b)
	n.data = d
	end := off + int64(len(b))
	n.heal(func(lo, hi int64) bool { return off > lo || end < min(hi, int64(len(d))) })
}

// doWrite is a write as a step: while it runs, words may be old or new.
func (w *world) doWrite(name, path string, off int64, b []byte) {
	w.do(name, func() { w.write(path, off, b) })
	w.torn(path)
}

// torn says that while the last step, a write, ran each word of a file may have been old or new.
func (w *world) torn(path string) {
	if w.atomic {
		return
	}
	s := &w.steps[len(w.steps)-1]
	s.mid = s.new.clone()
	n := s.mid.find(parts(path))
	old := s.old.find(parts(path))
	n.was, n.wasLost, n.inflight = old.data, old.lost, true
}

// promise says that a name in the root has that mtime, durably, once the last step has returned.
func (w *world) promise(name string, mtime int64) {
	s := &w.steps[len(w.steps)-1]
	s.equal = false
	s.new.kids[name].mtimes = []int64{mtime}
}

// fill is n bytes that depend on seed, none of them zero.
func fill(seed, n int) []byte {
	r := rnd(seed)
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(1 + r.next()%255)
	}
	return b
}

// format makes the filesystem and mounts it.
func (w *world) format() {
	if _, err := fs.Mkfs(w.r, mkfsOptions()); err != nil {
		panic(fmt.Sprintf("mkfs: %v", err))
	}
	w.root = newTree()
	w.root.ino = layout.RootIno
}

// crash ends the daemon without unmounting: whatever was in DRAM is gone.
func (w *world) crash() {
	w.f = nil
	w.root.all(func(n *node) { n.refs = 0 })
}

// mtime is what stat says now.
func (w *world) mtime(path string) int64 {
	var a fs.Attr
	if w.f != nil {
		must("getattr "+path, w.f.GetAttr(&w.ctx, w.at(path).ino, &a))
	}
	return a.Mtime
}
