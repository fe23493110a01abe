package fs

import (
	"syscall"

	"github.com/daxfsd/daxfsd/fs/dirindex"
	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// node describes the inode that create makes.
type node struct {
	mode, rdev uint32
	target     string // of a symbolic link
	unnamed    bool   // O_TMPFILE: no name, and a link count of 0
}

// Mknod creates a regular file, fifo, socket or device node. ctx.Umask is taken from its mode,
// unless the directory has a default access control list.
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

// Tmpfile creates a regular file without a name, as O_TMPFILE. It is freed with its last reference
// unless Link gives it a name before. It inherits from directory dir as any new file.
func (fs *FS) Tmpfile(ctx *Caller, dir uint64, mode uint32, a *Attr) syscall.Errno {
	return fs.create(ctx, dir, "", &node{mode: mode&0o7777 | syscall.S_IFREG, unnamed: true}, a)
}

// Mkdir creates a directory.
func (fs *FS) Mkdir(ctx *Caller, dir uint64, name string, mode uint32, a *Attr) syscall.Errno {
	return fs.create(ctx, dir, name, &node{mode: mode&0o7777 | syscall.S_IFDIR}, a)
}

// create makes a new inode and its name, if it has one, and fills a.
//
// Persistence order:
//  1. the target of a long link: NT-store into a fresh block, SFENCE
//  2. if the name needs a fresh directory block: it is formatted and fenced
//  3. inherited access control lists are stored: swapXattrsLocked
//  4. transaction: the inode's core, times and extent lines; the dentry; the directory's times
//     line, and its core line if its size or link count changes
func (fs *FS) create(ctx *Caller, dir uint64, name string, nd *node, a *Attr) syscall.Errno {
	return fs.retryNoSpace(ctx, func() syscall.Errno { return fs.tryCreate(ctx, dir, name, nd, a) })
}

// tryCreate is one attempt of create.
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

// createLocked makes the inode and its name in directory d. Called with d.mu held and no lane.
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

// newborn is an inode that is being created (inodeCreating): it is in DRAM, where get does not find
// it, and not on the media yet.
type newborn struct {
	fs    *FS
	ctx   *Caller
	in    *inode
	nd    *node
	block uint64     // the target of a long link; 0: none
	list  *xattrSwap // inherited access control lists; nil: none
}

// newNodeLocked makes all parts of a new inode that precede the transaction which makes it visible.
// Called with d.mu held and no lane.
func (fs *FS) newNodeLocked(ctx *Caller, d *inode, nd *node) (*newborn, error) {
	ino, err := fs.meta.AllocInode(ctx.Lane, ctx.UID)
	if err != nil {
		return nil, err
	}
	n := &newborn{fs: fs, ctx: ctx, nd: nd}
	if n.in, err = n.newInodeLocked(d, ino); err == nil {
		if n.block, err = n.storeTarget(); err == nil {
			n.list, err = n.inheritACLLocked(d)
		}
	}
	if err != nil {
		n.free(ino)
		return nil, err
	}
	// In the cache before its lines are on the media, so that a get by number does not read them.
	n.in.state = inodeCreating
	s := fs.shard(ino)
	s.mu.Lock()
	s.addLocked(n.in)
	s.mu.Unlock()
	return n, nil
}

// done makes the inode visible to get, after the commit.
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

// undo removes the inode after a transaction that was not committed.
func (n *newborn) undo() {
	n.fs.shard(n.in.ino).drop(n.in)
	n.list.undo()
	n.free(n.in.ino)
}

// free gives back what newNodeLocked allocated. Called with no lane held.
func (n *newborn) free(ino uint64) {
	if n.block != 0 {
		n.fs.free.idle(n.block, 1)
	}
	n.fs.meta.FreeInode(n.ctx.Lane, ino)
}

// newInodeLocked makes a new inode in DRAM, with one reference. Its generation follows that of the
// slot's last user. Called with dir.mu held.
func (n *newborn) newInodeLocked(dir *inode, ino uint64) (*inode, error) {
	fs, ctx, node := n.fs, n.ctx, n.nd
	in := &inode{ino: ino, off: fs.sb.InodeOff(ino), typ: node.mode & syscall.S_IFMT}
	in.refs.Store(1)
	var line layout.Line
	if err := fs.journal.ReadLine(in.off+layout.InodeCoreOff, &line); err != nil {
		return nil, err
	}
	if in.core.Get(&line); in.core.Mode != 0 {
		return nil, fs.contradiction(corruptf("inode %d is in use, but free in the saved free map", ino))
	}
	gen := in.core.Gen + 1
	if gen == 0 {
		gen = 1
	}
	in.core = layout.Core{Gen: gen, Mode: uint16(node.mode), UID: ctx.UID, GID: ctx.GID, Nlink: 1, Rdev: node.rdev, Size: uint64(len(node.target))}
	if in.isReg() || in.isDir() {
		in.core.Flags = dir.core.Flags & flagsInherited
		if !in.isDir() {
			in.core.Flags &^= layout.FlagProjInherit
		}
		in.flags.Store(in.core.Flags)
	}
	if dir.core.Flags&layout.FlagProjInherit != 0 {
		in.core.Proj = dir.core.Proj
	}
	if dir.core.Mode&syscall.S_ISGID != 0 {
		in.core.GID = dir.core.GID
		if in.isDir() {
			in.core.Mode |= syscall.S_ISGID
		}
	}
	if in.isDir() {
		in.core.Nlink, in.core.Parent = 2, dir.ino
		in.parent.Store(dir.ino)
		in.up.Store(dir)
		in.anchored.Store(true)
		in.content = &content{}
		in.dir = &dirindex.Index{}
		in.loaded.Store(true)
	}
	if node.unnamed {
		in.core.Nlink, in.linkable = 0, true
	}
	in.size.Store(in.core.Size)
	in.btime = fs.now()
	in.setTimes(in.btime, in.btime, in.btime)
	return in, nil
}

// stageContent stages the extent line of a new inode: a link's target, the block that holds the
// target, or an empty line in place of what the slot's last user left.
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

// emptySlots reports whether the extent line is empty already, so that the transaction need not
// carry it.
func (in *inode) emptySlots(t *journal.Tx, off int64) bool {
	var l layout.Line
	return t.Peek(off, &l) == nil && [layout.PayloadSize]byte(l.Payload()) == [layout.PayloadSize]byte{}
}
