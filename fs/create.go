package fs

import (
	"syscall"

	"github.com/daxfsd/daxfsd/fs/dirindex"
	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// node is what create makes.
type node struct {
	mode, rdev uint32
	target     string // symbolic links
	unnamed    bool   // O_TMPFILE: no name, no link
}

// Mknod creates a regular file, fifo, socket or device node. Of the mode of what is created
// ctx.Umask is taken, unless the directory has a default access control list.
func (fs *FS) Mknod(ctx *Caller, dir uint64, name string, mode, rdev uint32, a *Attr) syscall.Errno {
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
func (fs *FS) Tmpfile(ctx *Caller, dir uint64, mode uint32, a *Attr) syscall.Errno {
	return fs.create(ctx, dir, "", &node{mode: mode&0o7777 | syscall.S_IFREG, unnamed: true}, a)
}

// Mkdir creates a directory.
func (fs *FS) Mkdir(ctx *Caller, dir uint64, name string, mode uint32, a *Attr) syscall.Errno {
	return fs.create(ctx, dir, name, &node{mode: mode&0o7777 | syscall.S_IFDIR}, a)
}

// create makes a new inode and its name, if it has one.
//
// Persistence order:
//  1. a long link's target: NT-store into a fresh block, SFENCE
//  2. whatever the name needs: a fresh directory block is formatted and fenced
//  3. what is inherited of access control lists: swapXattrsLocked
//  4. transaction: the inode's core, times and extent lines; the dentry; the
//     directory's times line, and its core line if its size or link count changes
func (fs *FS) create(ctx *Caller, dir uint64, name string, nd *node, a *Attr) syscall.Errno {
	return fs.retryNoSpace(ctx, func() syscall.Errno { return fs.tryCreate(ctx, dir, name, nd, a) })
}

func (fs *FS) tryCreate(ctx *Caller, dir uint64, name string, nd *node, a *Attr) syscall.Errno {
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
	in.fillLocked(a)
	in.mu.RUnlock()
	return 0
}

func (fs *FS) createLocked(ctx *Caller, d *inode, name string, nd *node) (in *inode, err error) {
	var p dirPlace
	if !nd.unnamed {
		if p, err = fs.placeNameLocked(ctx, d, layout.DentryLines(len(name))); err != nil {
			return nil, err
		}
	}
	n, err := fs.newNodeLocked(ctx, d, nd)
	if err != nil {
		fs.undoPlace(ctx, &p)
		return nil, err
	}
	c := fs.begin(ctx)
	c.create(n)
	if !nd.unnamed {
		u := c.update(d)
		c.link(u, p, name, n.in.ino, dtype(nd.mode))
		if n.in.isDir() {
			u.Core.Nlink++
		}
		u.stamp(SetMtime|SetCtime, n.in.btime)
	}
	if err := c.commit(); err != nil {
		return nil, err
	}
	return n.in, nil
}

// newborn is an inode on its way: in DRAM, where nobody finds it, and not yet on media.
type newborn struct {
	fs    *FS
	ctx   *Caller
	in    *inode
	nd    *node
	block uint64 // of a long link's target; 0: none
	list  *xattrSwap
}

// newNodeLocked makes everything of a new inode that stands outside the transaction which shows
// it. Called with d.mu held.
func (fs *FS) newNodeLocked(ctx *Caller, d *inode, nd *node) (*newborn, error) {
	ino, err := fs.meta.AllocInode(ctx.Lane, ctx.UID)
	if err != nil {
		return nil, err
	}
	n := &newborn{fs: fs, ctx: ctx, nd: nd}
	if n.in, err = n.newInode(d, ino); err == nil {
		if n.block, err = n.storeTarget(); err == nil {
			n.list, err = n.inheritACL(d)
		}
	}
	if err != nil {
		n.free(ino)
		return nil, err
	}
	// Before its lines are on media, so that a get by number does not read them.
	n.in.state = inodeCreating
	s := fs.shard(ino)
	s.mu.Lock()
	s.addLocked(n.in)
	s.mu.Unlock()
	return n, nil
}

// done is after commit: the inode can be found.
func (n *newborn) done() {
	fs := n.fs
	n.list.done()
	if n.block != 0 {
		fs.table.Own(n.block, 1)
	}
	s := fs.shard(n.in.ino)
	s.mu.Lock()
	n.in.state = inodeLive
	s.mu.Unlock()
}

// undo is for a transaction that was not committed.
func (n *newborn) undo() {
	n.fs.shard(n.in.ino).drop(n.in)
	n.list.undo()
	n.free(n.in.ino)
}

// free gives back what newNodeLocked took. Called with no lane.
func (n *newborn) free(ino uint64) {
	if n.block != 0 {
		n.fs.free.idle(n.block, 1)
	}
	n.fs.meta.FreeInode(n.ctx.Lane, ino)
}

// newInode is a new inode in DRAM, with one reference. Its generation follows that of the
// slot's last user.
func (n *newborn) newInode(d *inode, ino uint64) (*inode, error) {
	fs, ctx, nd := n.fs, n.ctx, n.nd
	in := &inode{ino: ino, off: fs.sb.InodeOff(ino), typ: nd.mode & syscall.S_IFMT}
	in.refs.Store(1)
	var l layout.Line
	if err := fs.journal.ReadLine(in.off+layout.InodeCoreOff, &l); err != nil {
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

// stageContent writes the extent line of a new inode: a link's target, its block,
// or nothing (over what the slot's last user left).
func (in *inode) stageContent(t *journal.Tx, nd *node, block uint64) {
	off := in.off + layout.InodeExtentOff
	in.counted.Store(block == 0)
	if nd.target == "" && in.emptySlots(t, off) {
		return
	}
	l := t.At(off)
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
func (in *inode) emptySlots(t *journal.Tx, off int64) bool {
	var l layout.Line
	return t.Peek(off, &l) == nil && [layout.PayloadSize]byte(l.Payload()) == [layout.PayloadSize]byte{}
}
