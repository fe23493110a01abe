package fs

import (
	"errors"
	"syscall"

	"github.com/daxfsd/daxfsd/fs/dirindex"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// Flags of Rename, as renameat2(2).
const (
	RenameNoReplace uint32 = 1 << 0
	RenameExchange  uint32 = 1 << 1
	// RenameWhiteout leaves a whiteout under the old name: a character device 0:0, by which
	// overlayfs knows that a name of a lower layer is gone.
	RenameWhiteout uint32 = 1 << 2
)

// Rename moves a name, and replaces the inode that the new name led to, in one transaction: a crash
// leaves exactly the old or exactly the new names.
//
// Persistence order:
//  1. a fresh directory block, if the new name needs one, is formatted and fenced
//  2. transaction: the new dentry written (or pointed at the moved inode), the old
//     one cleared (or pointed at a whiteout, whose lines are written); the moved inode's times line
//     (and its parent); the replaced inode's link count; the directories' times, and their link
//     counts if a directory moved
//  3. the replaced inode, if that was its last name and reference: reclaim
//  4. the old directory's block, if it became empty: trimDirLocked
func (fs *FS) Rename(ctx *Caller, odir uint64, oname string, ndir uint64, nname string, flags uint32) syscall.Errno {
	return fs.retryNoSpace(ctx, func() syscall.Errno { return fs.tryRename(ctx, odir, oname, ndir, nname, flags) })
}

func (fs *FS) tryRename(ctx *Caller, odir uint64, oname string, ndir uint64, nname string, flags uint32) syscall.Errno {
	if e := fs.mayChange(); e != 0 {
		return e
	}
	if flags&^(RenameNoReplace|RenameExchange|RenameWhiteout) != 0 || flags&RenameExchange != 0 && flags != RenameExchange {
		return syscall.EINVAL
	}
	for _, n := range []string{oname, nname} {
		if e := checkName(n); e == syscall.EEXIST {
			return syscall.EBUSY
		} else if e != 0 {
			return e
		}
	}
	od, e := fs.getDir(ctx, odir)
	if e != 0 {
		return e
	}
	defer fs.put(od, 1)
	nd, e := fs.getDir(ctx, ndir)
	if e != 0 {
		return e
	}
	defer fs.put(nd, 1)
	var before renaming // the previous try, which keeps its victim in DRAM for the next one
	for {
		r := renaming{fs: fs, ctx: ctx, od: od, nd: nd, oname: oname, nname: nname, flags: flags}
		err := r.locked()
		before.release(fs)
		again := err == errUnread
		if again {
			err = fs.extentsLoaded(ctx, r.victim)
		}
		if err != nil || !again {
			r.release(fs)
			return errno(err)
		}
		before = r
	}
}

// errUnread reports that the names of the directory to be replaced are not in DRAM. Nothing has
// changed.
var errUnread = errors.New("the names of a directory are not in memory")

// locked calls run with the rename mutex, if needed, and the locks of the directories held.
func (r *renaming) locked() error {
	if r.od != r.nd {
		if err := r.fs.lockRename(r.ctx); err != nil {
			return err
		}
		defer r.fs.rename.Unlock()
	}
	defer lockDirs(r.od, r.nd)()
	return r.run()
}

// lockRename takes the rename mutex. EAGAIN as Caller.lock.
func (fs *FS) lockRename(ctx *Caller) error { return ctx.lock(&fs.rename) }

// lockDirs locks two directories. If one is an ancestor of the other, its lock comes first, but to
// find that out takes a walk up. So no caller waits for one of the locks while it holds the other.
func lockDirs(a, b *inode) (unlock func()) {
	if a == b {
		a.mu.Lock()
		return a.mu.Unlock
	}
	for a.mu.Lock(); !b.mu.TryLock(); a.mu.Lock() {
		a.mu.Unlock()
		a, b = b, a // wait for the one that another caller has
	}
	return func() { b.mu.Unlock(); a.mu.Unlock() }
}

// renaming is one Rename under way, its directories locked.
type renaming struct {
	fs           *FS
	ctx          *Caller
	od, nd       *inode
	oname, nname string
	flags        uint32

	from, to dirindex.Entry
	in       *inode // the inode that moves
	victim   *inode // the inode that the new name led to; nil: none
}

// release drops the references to the moved and the replaced inode.
func (r *renaming) release(fs *FS) {
	if r.in != nil {
		fs.put(r.in, 1)
	}
	if r.victim != nil {
		fs.put(r.victim, 1)
	}
}

func (r *renaming) run() error {
	fs := r.fs
	if r.od.core.Nlink == 0 || r.nd.core.Nlink == 0 {
		return syscall.ENOENT
	}
	ok, err := false, error(nil)
	if r.from, ok, err = fs.find(r.od, r.oname); err != nil {
		return err
	} else if !ok {
		return syscall.ENOENT
	}
	if r.to, ok, err = fs.find(r.nd, r.nname); err != nil {
		return err
	}
	switch {
	case ok && r.flags&RenameNoReplace != 0:
		return syscall.EEXIST
	case !ok && r.flags&RenameExchange != 0:
		return syscall.ENOENT
	case ok && r.to.Ino == r.from.Ino:
		return nil // two names of one inode, or one name: nothing to do
	}
	var e syscall.Errno
	if r.in, e = fs.get(r.from.Ino); e != 0 {
		return syscall.EIO
	}
	if ok {
		if r.victim, e = fs.get(r.to.Ino); e != 0 {
			return syscall.EIO
		}
	}
	if err := r.checkTree(); err != nil {
		return err
	}
	if e := r.checkFlags(); e != 0 {
		return e
	}
	if err := r.checkLoops(); err != nil {
		return err
	}
	if r.victim != nil && r.flags&RenameExchange == 0 && r.victim.unread() {
		return errUnread
	}
	first, second := r.lockOrder()
	first.mu.Lock()
	defer first.mu.Unlock()
	if second != nil {
		second.mu.Lock()
		defer second.mu.Unlock()
	}
	if r.flags&RenameExchange != 0 {
		return r.exchange()
	}
	return r.move()
}

// lockOrder returns the moved and the replaced inode (nil: none) in the order in which to lock
// them: a directory before a file, since it may hold another name of that file, else by number.
func (r *renaming) lockOrder() (first, second *inode) {
	a, b := r.in, r.victim
	if b == nil || a.isDir() && !b.isDir() || a.isDir() == b.isDir() && a.ino < b.ino {
		return a, b
	}
	return b, a
}

// checkFlags returns an error if an immutable or append-only inode must keep one of the names.
func (r *renaming) checkFlags() syscall.Errno {
	e := mayDelete(r.od, r.in)
	if e == 0 {
		e = mayAdd(r.nd)
	}
	if e == 0 && r.victim != nil {
		e = mayDelete(r.nd, r.victim)
	}
	return e
}

// checkTree refuses names that lead to directories which are not children of the directory of the
// name. These exist on damaged media only, where following them would lock a directory twice.
func (r *renaming) checkTree() error {
	for _, n := range [2]struct{ d, in *inode }{{r.od, r.in}, {r.nd, r.victim}} {
		if n.in != nil && !isChild(n.d, n.in) {
			return notChild(n.d, n.in)
		}
	}
	return nil
}

// checkLoops refuses to move a directory below itself, and to replace a directory that the old name
// lies in. Within one directory neither can happen.
func (r *renaming) checkLoops() error {
	if r.od == r.nd {
		return nil
	}
	if r.in.isDir() {
		if under, err := r.isUnderLocked(r.nd, r.in); err != nil || under {
			return orErr(err, syscall.EINVAL)
		}
	}
	if r.victim != nil && r.victim.isDir() {
		if under, err := r.isUnderLocked(r.od, r.victim); err != nil || under {
			if r.flags&RenameExchange != 0 {
				return orErr(err, syscall.EINVAL)
			}
			return orErr(err, syscall.ENOTEMPTY)
		}
	}
	return nil
}

// isUnderLocked is FS.isUnderLocked, but does not walk up if top has no subdirectory. Most
// directories that are moved have none. Called with the rename mutex held.
func (r *renaming) isUnderLocked(d, top *inode) (bool, error) {
	if d == top || top.leaf() {
		return d == top, nil
	}
	return r.fs.isUnderLocked(r.ctx, d, top)
}

// leaf reports whether a directory has no subdirectory. While the rename mutex is held, no existing
// directory moves into a leaf.
func (in *inode) leaf() bool {
	if !in.mu.TryRLock() { // it may be above a directory whose lock we hold
		return false
	}
	defer in.mu.RUnlock()
	return in.core.Nlink == 2
}

func orErr(err error, e syscall.Errno) error {
	if err != nil {
		return err
	}
	return e
}

// move does a plain rename.
func (r *renaming) move() error {
	m := moving{renaming: r}
	if err := m.prepare(); err != nil {
		return err
	}
	if err := m.commit(); err != nil {
		return err
	}
	if m.w != nil {
		r.fs.put(m.w.in, 1)
	} else {
		r.fs.trimDirLocked(r.ctx, r.od, r.from.Pos)
	}
	return nil
}

// moving is a plain rename under way.
type moving struct {
	*renaming
	p dirPlace // place of the new name, if it replaces none
	w *newborn // whiteout under the old name; nil: none
}

// prepare does the remaining checks, and takes the space that the rename needs.
func (m *moving) prepare() (err error) {
	fs, in, v := m.fs, m.in, m.victim
	if v != nil {
		if in.isDir() != v.isDir() {
			if v.isDir() {
				return syscall.EISDIR
			}
			return syscall.ENOTDIR
		}
		if err := v.mayRemoveLocked(v.isDir()); err != nil {
			return err
		}
	} else {
		if in.isDir() && m.od != m.nd && m.nd.core.Nlink >= LinkMax {
			return syscall.EMLINK
		}
		if m.p, err = fs.placeNameLocked(m.ctx, m.nd, layout.DentryLines(len(m.nname))); err != nil {
			return err
		}
	}
	if m.flags&RenameWhiteout != 0 {
		if m.w, err = fs.newNodeLocked(m.ctx, m.od, &node{mode: syscall.S_IFCHR}); err != nil {
			fs.undoPlace(m.ctx, &m.p)
			return err
		}
	}
	return nil
}

// commit does the transaction, and makes it current in DRAM. If it fails nothing has changed.
func (m *moving) commit() error {
	fs, in, v := m.fs, m.in, m.victim
	now := fs.now()
	c := fs.begin(m.ctx)
	od, nd := m.dirs(&c, now)
	if v != nil {
		u := c.update(v)
		u.unlinked()
		u.stamp(SetCtime, now)
		c.retarget(m.nd, &m.to, in)
		if v.isDir() {
			dropSubdir(&nd.Core)
		}
	} else {
		c.link(nd, m.p, m.nname, in.ino, dtype(in.typ))
	}
	if w := m.w; w != nil {
		c.create(w)
		c.retarget(m.od, &m.from, w.in)
	} else {
		c.unlink(od, &m.from)
	}
	c.move(in, od, nd)
	c.update(in).stamp(SetCtime, now)
	if err := c.commit(); err != nil {
		return err
	}
	if v != nil {
		fs.freeing.nameGoneLocked(v)
	}
	in.movedTo(m.nd)
	return nil
}

// exchange swaps the inodes that two names lead to.
func (r *renaming) exchange() error {
	in, v := r.in, r.victim
	now := r.fs.now()
	c := r.fs.begin(r.ctx)
	od, nd := r.dirs(&c, now)
	c.retarget(r.nd, &r.to, in)
	c.retarget(r.od, &r.from, v)
	c.move(in, od, nd)
	c.move(v, nd, od)
	c.update(in).stamp(SetCtime, now)
	c.update(v).stamp(SetCtime, now)
	if err := c.commit(); err != nil {
		return err
	}
	in.movedTo(r.nd)
	v.movedTo(r.od)
	return nil
}

// movedTo records that the inode now has its name in directory d.
func (in *inode) movedTo(d *inode) {
	if in.isDir() {
		in.up.Store(d)
	}
}

// dirs adds both directories to a change, with the time now (ns since 1970) as mtime and ctime.
func (r *renaming) dirs(c *change, now int64) (od, nd *update) {
	od = c.update(r.od)
	od.stamp(SetMtime|SetCtime, now)
	nd = c.update(r.nd)
	nd.stamp(SetMtime|SetCtime, now)
	return od, nd
}

// move makes an inode's name go from one directory to another. For a directory this changes its
// parent, and the link counts of both.
func (c *change) move(in *inode, from, to *update) {
	if !in.isDir() || from == to {
		return
	}
	dropSubdir(&from.Core)
	to.Core.Nlink++
	c.update(in).Core.Parent = to.in.ino
}
