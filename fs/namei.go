package fs

import (
	"strings"
	"syscall"

	"github.com/daxfs/daxfs/fs/dirindex"
	"github.com/daxfs/daxfs/fs/layout"
)

// LinkMax is the largest link count.
const LinkMax = 1<<32 - 2

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
func (fs *FS) Lookup(ctx *Context, dir uint64, name string, a *Attr) syscall.Errno {
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
	return fs.child(d, de.Ino)
}

// RefEntry is Ref of what an entry leads to, for the function that ReadDir calls. ESTALE also if it has moved
// meanwhile.
func (fs *FS) RefEntry(ctx *Context, d *Dirent, a *Attr) syscall.Errno {
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

// Ref adds a reference to an inode by number and fills a; ESTALE if there is none, or if it has lost its last
// name: a kernel asks by number only for what nobody has open, and what it told us to forget may be on its way.
func (fs *FS) Ref(ctx *Context, ino uint64, a *Attr) syscall.Errno {
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

// node is what create makes.
type node struct {
	mode, rdev uint32
	target     string // symbolic links
	unnamed    bool   // O_TMPFILE: no name, no link
}

// Mknod creates a regular file, fifo, socket or device node. Of the mode of what is created
// ctx.Umask is taken, unless the directory has a default access control list.
func (fs *FS) Mknod(ctx *Context, dir uint64, name string, mode, rdev uint32, a *Attr) syscall.Errno {
	switch mode & syscall.S_IFMT {
	case 0:
		mode |= syscall.S_IFREG
	case syscall.S_IFREG, syscall.S_IFIFO, syscall.S_IFSOCK, syscall.S_IFCHR, syscall.S_IFBLK:
	default:
		return syscall.EINVAL
	}
	return fs.create(ctx, dir, name, &node{mode: mode, rdev: rdev}, a)
}

// Tmpfile creates a regular file without a name, as O_TMPFILE: it goes with its last
// reference unless Link names it before. dir says where Link may name it.
func (fs *FS) Tmpfile(ctx *Context, dir uint64, mode uint32, a *Attr) syscall.Errno {
	return fs.create(ctx, dir, "", &node{mode: mode&0o7777 | syscall.S_IFREG, unnamed: true}, a)
}

// Mkdir creates a directory.
func (fs *FS) Mkdir(ctx *Context, dir uint64, name string, mode uint32, a *Attr) syscall.Errno {
	return fs.create(ctx, dir, name, &node{mode: mode&0o7777 | syscall.S_IFDIR}, a)
}

// Symlink creates a symbolic link of 1 to 4095 bytes.
func (fs *FS) Symlink(ctx *Context, dir uint64, name, target string, a *Attr) syscall.Errno {
	if target == "" {
		return syscall.ENOENT
	}
	if len(target) >= layout.BlockSize {
		return syscall.ENAMETOOLONG
	}
	return fs.create(ctx, dir, name, &node{mode: 0o777 | syscall.S_IFLNK, target: target}, a)
}

// create makes a new inode and its name, if it has one.
//
// Persistence order:
//  1. a long link's target: NT-store into a fresh block, SFENCE
//  2. whatever the name needs: a fresh directory block is formatted and fenced
//  3. what is inherited of access control lists: swapXattrs
//  4. transaction: the inode's core, times and extent lines; the dentry; the
//     directory's times line, and its core line if its size or link count changes
func (fs *FS) create(ctx *Context, dir uint64, name string, nd *node, a *Attr) syscall.Errno {
	return fs.patiently(ctx, func() syscall.Errno { return fs.tryCreate(ctx, dir, name, nd, a) })
}

func (fs *FS) tryCreate(ctx *Context, dir uint64, name string, nd *node, a *Attr) syscall.Errno {
	if e := fs.mayChange(); e != 0 {
		return e
	}
	if e := checkName(name); e != 0 && !nd.unnamed {
		return e
	}
	d, e := fs.getDir(ctx, dir)
	if e != 0 {
		return e
	}
	defer fs.put(d, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.core.Nlink == 0 {
		return syscall.ENOENT
	}
	if e := mayAdd(d); e != 0 {
		return e
	}
	if nd.mode&syscall.S_IFMT == syscall.S_IFDIR && d.core.Nlink >= LinkMax {
		return syscall.EMLINK
	}
	if !nd.unnamed {
		if _, ok, err := fs.find(d, name); ok || err != nil {
			if ok {
				return syscall.EEXIST
			}
			return errno(err)
		}
	}
	in, err := fs.createLocked(ctx, d, name, nd)
	if err != nil {
		return errno(err)
	}
	in.mu.RLock()
	in.fill(a)
	in.mu.RUnlock()
	return 0
}

func (fs *FS) createLocked(ctx *Context, d *inode, name string, nd *node) (in *inode, err error) {
	var p dirPlace
	if !nd.unnamed {
		if p, err = fs.placeName(ctx, d, layout.DentryLines(len(name))); err != nil {
			return nil, err
		}
	}
	n, err := fs.newNode(ctx, d, nd)
	if err != nil {
		fs.undoDentry(ctx, d, p, nil)
		return nil, err
	}
	t := fs.begin(ctx)
	n.stage(t)
	c := d.core
	var ch dirChange
	var ds stagedTimes
	if !nd.unnamed {
		ch = d.stageDentry(t, p, name, n.in.ino, dtype(nd.mode), &c)
		if n.in.isDir() {
			c.Nlink++
		}
		if c != d.core {
			d.stageCore(t, &c)
		}
		ds = d.stageTimes(t, SetMtime|SetCtime, n.in.btime)
	}
	if err := t.commit(); err != nil {
		fs.undoDentry(ctx, d, p, &ch)
		n.undo(ctx, fs)
		return nil, err
	}
	if !nd.unnamed {
		d.applyCore(&c)
		d.applyTimes(&ds)
		d.applyDentry(&ch)
	}
	n.done(ctx, fs)
	return n.in, nil
}

// newborn is an inode on its way: in DRAM, where nobody finds it, and not yet on media.
type newborn struct {
	in    *inode
	nd    *node
	block uint64 // of a long link's target; 0: none
	list  *xattrSwap
}

// newNode makes everything of a new inode that stands outside the transaction which shows
// it. Called with d.mu held.
func (fs *FS) newNode(ctx *Context, d *inode, nd *node) (*newborn, error) {
	ino, err := fs.allocInode(ctx)
	if err != nil {
		return nil, err
	}
	n := &newborn{nd: nd}
	if n.in, err = fs.newInode(ctx, d, ino, nd); err == nil {
		if n.block, err = fs.storeTarget(ctx, nd); err == nil {
			n.list, err = fs.inheritACL(ctx, d, n.in)
		}
	}
	if err != nil {
		n.free(ctx, fs, ino)
		return nil, err
	}
	// Before its lines are on media, so that a get by number does not read them.
	n.in.dying = true
	s := fs.shard(ino)
	s.mu.Lock()
	s.add(n.in)
	s.mu.Unlock()
	return n, nil
}

// stage writes the lines of the inode.
func (n *newborn) stage(t *tx) {
	n.in.stageContent(t, n.nd, n.block)
	n.in.stageCore(t, &n.in.core)
	n.in.stageTimes(t, 0, 0)
}

// done is after commit: the inode can be found.
func (n *newborn) done(ctx *Context, fs *FS) {
	n.list.done(ctx, fs)
	if n.block != 0 {
		fs.table.Own(n.block, 1)
	}
	s := fs.shard(n.in.ino)
	s.mu.Lock()
	n.in.dying = false
	s.mu.Unlock()
}

// undo is for a transaction that was not committed.
func (n *newborn) undo(ctx *Context, fs *FS) {
	if n == nil {
		return
	}
	fs.shard(n.in.ino).drop(n.in)
	n.list.undo(ctx, fs)
	n.free(ctx, fs, n.in.ino)
}

func (n *newborn) free(ctx *Context, fs *FS, ino uint64) {
	if n.block != 0 {
		fs.freeIdle(n.block, 1)
	}
	fs.freeInode(ctx, ino)
}

// newInode is a new inode in DRAM, with one reference. Its generation follows that of the
// slot's last user.
func (fs *FS) newInode(ctx *Context, d *inode, ino uint64, nd *node) (*inode, error) {
	in := &inode{ino: ino, off: fs.sb.InodeOff(ino), typ: nd.mode & syscall.S_IFMT}
	in.refs.Store(1)
	var l layout.Line
	if err := fs.loadLine(in.off+layout.InodeCoreOff, &l); err != nil {
		return nil, err
	}
	if in.core.Get(&l); in.core.Mode != 0 {
		return nil, fs.contradiction(corruptf("inode %d is in use, and is free by the saved free map", ino))
	}
	gen := in.core.Gen + 1
	if gen == 0 {
		gen = 1
	}
	in.core = layout.Core{Gen: gen, Mode: uint16(nd.mode), UID: ctx.UID, GID: ctx.GID, Nlink: 1, Rdev: nd.rdev, Size: uint64(len(nd.target))}
	if in.isReg() || in.isDir() {
		in.core.Flags = d.core.Flags & flagsInherited
		if !in.isDir() {
			in.core.Flags &^= layout.FlagProjInherit
		}
		in.flags.Store(in.core.Flags)
	}
	if d.core.Flags&layout.FlagProjInherit != 0 {
		in.core.Proj = d.core.Proj
	}
	if d.core.Mode&syscall.S_ISGID != 0 {
		in.core.GID = d.core.GID
		if in.isDir() {
			in.core.Mode |= syscall.S_ISGID
		}
	}
	if in.isDir() {
		in.core.Nlink, in.core.Parent = 2, d.ino
		in.parent.Store(d.ino)
		in.up.Store(d)
		in.anchored.Store(true)
		in.content = &content{}
		in.dir = &dirindex.Index{}
		in.loaded.Store(true)
	}
	if nd.unnamed {
		in.core.Nlink, in.linkable = 0, true
	}
	in.size.Store(in.core.Size)
	in.btime = fs.now()
	in.setTimes(in.btime, in.btime, in.btime)
	return in, nil
}

// storeTarget puts a long link's target in a fresh block and returns it, or 0 if
// the target fits the inode.
func (fs *FS) storeTarget(ctx *Context, nd *node) (block uint64, err error) {
	if len(nd.target) <= layout.InlineSize {
		return 0, nil
	}
	var buf [layout.BlockSize]byte
	copy(buf[:], nd.target)
	for range extendTries {
		if fs.spare(ctx.UID, 1) == 0 {
			return 0, errNoSpace
		}
		block, _, ok := fs.alloc.Alloc(0, 1)
		if !ok {
			return 0, errNoSpace
		}
		if err = fs.storeBlock(block, buf[:]); err == nil {
			return block, nil
		}
		news := fs.freshFailed(run{block, 1}, err)
		fs.freeIdle(block, 1)
		if !news {
			break
		}
	}
	return 0, err
}

// stageContent writes the extent line of a new inode: a link's target, its block,
// or nothing (over what the slot's last user left).
func (in *inode) stageContent(t *tx, nd *node, block uint64) {
	off := in.off + layout.InodeExtentOff
	in.counted.Store(block == 0)
	if nd.target == "" && in.emptySlots(t, off) {
		return
	}
	l := t.at(off)
	clear(l.Payload())
	switch {
	case block != 0:
		e := layout.Extent{Block: block, Len: 1}
		l.PutExtent(0, e)
	case nd.target != "":
		in.core.Format |= layout.FormatInline
		copy(l.Payload(), nd.target)
	}
}

// emptySlots reports whether the slot's last user left the extent line empty, so
// that the transaction need not carry it.
func (in *inode) emptySlots(t *tx, off int64) bool {
	var l layout.Line
	if err := t.lane.fs.loadLine(off, &l); err != nil {
		t.fail(err)
		return false
	}
	return [layout.PayloadSize]byte(l.Payload()) == [layout.PayloadSize]byte{}
}

// Link gives an inode another name.
//
// Persistence order:
//  1. a fresh directory block, if the name needs one, is formatted and fenced
//  2. transaction: the dentry, the inode's core and times lines, the directory's
//     times line and, if it grows, its core line
func (fs *FS) Link(ctx *Context, ino, dir uint64, name string, a *Attr) syscall.Errno {
	return fs.patiently(ctx, func() syscall.Errno { return fs.tryLink(ctx, ino, dir, name, a) })
}

func (fs *FS) tryLink(ctx *Context, ino, dir uint64, name string, a *Attr) syscall.Errno {
	if e := fs.mayChange(); e != 0 {
		return e
	}
	if e := checkName(name); e != 0 {
		return e
	}
	d, e := fs.getDir(ctx, dir)
	if e != 0 {
		return e
	}
	defer fs.put(d, 1)
	in, e := fs.get(ino)
	if e != 0 {
		return e
	}
	var err error
	if in.isDir() {
		err = syscall.EPERM
	}
	if err == nil {
		err = fs.blocksKnown(ctx, in) // for a, while nothing has changed
	}
	if err == nil {
		err = fs.link(ctx, in, d, name)
	}
	e = errno(err)
	if e == 0 {
		e = fs.attr(ctx, in, a)
	}
	if e != 0 {
		fs.put(in, 1)
	}
	return e // 0: the reference of get stays: it is the caller's
}

func (fs *FS) link(ctx *Context, in, d *inode, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case d.core.Nlink == 0 || in.core.Nlink == 0 && !in.linkable:
		return syscall.ENOENT
	case in.core.Nlink >= LinkMax:
		return syscall.EMLINK
	case d.immutable() || in.fixed():
		return syscall.EPERM
	}
	if _, ok, err := fs.find(d, name); ok || err != nil {
		if ok {
			return syscall.EEXIST
		}
		return err
	}
	p, err := fs.placeName(ctx, d, layout.DentryLines(len(name)))
	if err != nil {
		return err
	}
	now := fs.now()
	t := fs.begin(ctx)
	c, dc := in.core, d.core
	c.Nlink++
	in.stageCore(t, &c)
	is := in.stageTimes(t, SetCtime, now)
	ch := d.stageDentry(t, p, name, in.ino, dtype(in.typ), &dc)
	if dc != d.core {
		d.stageCore(t, &dc)
	}
	ds := d.stageTimes(t, SetMtime|SetCtime, now)
	if err := t.commit(); err != nil {
		fs.undoDentry(ctx, d, p, &ch)
		return err
	}
	in.applyCore(&c)
	in.applyTimes(&is)
	in.linkable = false
	d.applyCore(&dc)
	d.applyTimes(&ds)
	d.applyDentry(&ch)
	return nil
}

// Unlink removes a name that is not a directory's. The inode goes with its last
// name and last reference.
func (fs *FS) Unlink(ctx *Context, dir uint64, name string) syscall.Errno {
	return fs.remove(ctx, dir, name, false)
}

// Rmdir removes an empty directory.
func (fs *FS) Rmdir(ctx *Context, dir uint64, name string) syscall.Errno {
	if name == "." {
		return syscall.EINVAL
	}
	if name == ".." {
		return syscall.ENOTEMPTY
	}
	return fs.remove(ctx, dir, name, true)
}

// remove needs no space.
//
// Persistence order:
//  1. transaction: the dentry's lines cleared; the inode's core line (link count)
//     and times line; the directory's times line, and its core line for rmdir
//  2. the inode, if that was its last name and nobody references it: reclaim
//  3. the directory's block, if it became empty: trimDir
func (fs *FS) remove(ctx *Context, dir uint64, name string, rmdir bool) syscall.Errno {
	if e := fs.mayChange(); e != 0 {
		return e
	}
	d, e := fs.getDir(ctx, dir)
	if e != 0 {
		return e
	}
	defer fs.put(d, 1)
	var read *inode // what was unread, kept in DRAM for the next try
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

// tryRemove is remove, but for a directory whose names are not in DRAM: it returns that with one more
// reference, and nothing has changed. They are read while no lock of its parent is held.
func (fs *FS) tryRemove(ctx *Context, d *inode, name string, rmdir bool) (unread *inode, e syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	de, ok, err := fs.find(d, name)
	if err != nil {
		return nil, errno(err)
	}
	if !ok {
		return nil, syscall.ENOENT
	}
	in, err := fs.child(d, de.Ino)
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
	fs.trimDir(ctx, d, de.Pos)
	return nil, 0
}

// unread reports whether in is a directory whose names are not in DRAM.
func (in *inode) unread() bool { return in.isDir() && !in.loaded.Load() }

func (fs *FS) removeLocked(ctx *Context, d, in *inode, de *dirindex.Entry, rmdir bool) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.mayRemove(rmdir); err != nil {
		return err
	}
	now := fs.now()
	t := fs.begin(ctx)
	c, dc := in.core, d.core
	is := in.stageUnlink(t, &c, now)
	d.stageRemove(t, de)
	if rmdir {
		dropSubdir(&dc)
		d.stageCore(t, &dc)
	}
	ds := d.stageTimes(t, SetMtime|SetCtime, now)
	if err := t.commit(); err != nil {
		return err
	}
	in.applyCore(&c)
	fs.nameGone(in)
	in.applyTimes(&is)
	d.applyCore(&dc)
	d.applyTimes(&ds)
	d.dir.Remove(de)
	return nil
}

// dropSubdir takes the link of a directory away that is no longer below it. A damaged count never
// says that the directory itself is gone.
func dropSubdir(c *layout.Core) {
	if c.Nlink > 2 {
		c.Nlink--
	}
}

// mayRemove checks what a removed name leads to. Called with in.mu held.
// Precondition: a directory is not unread.
func (in *inode) mayRemove(rmdir bool) error {
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

// stageUnlink takes one link off: both of a directory.
func (in *inode) stageUnlink(t *tx, c *layout.Core, now int64) stagedTimes {
	if c.Nlink--; in.isDir() {
		c.Nlink = 0
	}
	in.stageCore(t, c)
	return in.stageTimes(t, SetCtime, now)
}

// Readlink appends a symbolic link's target to buf.
func (fs *FS) Readlink(ctx *Context, ino uint64, buf []byte) ([]byte, syscall.Errno) {
	in, e := fs.get(ino)
	if e != 0 {
		return buf, e
	}
	defer fs.put(in, 1)
	if in.typ != syscall.S_IFLNK {
		return buf, syscall.EINVAL
	}
	in.mu.RLock()
	defer in.mu.RUnlock()
	var l layout.Line
	if err := fs.loadLine(in.off+layout.InodeExtentOff, &l); err != nil {
		return buf, errno(err)
	}
	n := int(in.core.Size)
	fs.accessed(ctx, in)
	if in.core.Format&layout.FormatInline != 0 {
		return append(buf, l.Payload()[:min(n, layout.InlineSize)]...), 0
	}
	e0 := l.Extent(0)
	if n >= layout.BlockSize || e0.Len == 0 || e0.Block >= fs.sb.Blocks() {
		return buf, syscall.EIO
	}
	if err := fs.checkRead(e0.Block, 1); err != nil {
		return buf, errno(err)
	}
	at := len(buf)
	buf = append(buf, make([]byte, n)...)
	return buf, errno(fs.load(int64(e0.Block)<<layout.BlockShift, buf[at:]))
}
