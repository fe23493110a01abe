package fs

import (
	"github.com/daxfsd/daxfsd/fs/dirindex"
	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// change is a transaction together with what it makes current in DRAM. Its lines are staged in the
// journal's transaction; commit writes them, and then applies all of them or undoes what they took:
// staged and not applied there is nothing.
//
//	c := fs.begin(ctx)
//	u := c.update(in)
//	u.Core.Nlink++
//	u.stamp(SetCtime, now)
//	err := c.commit()
//
// Rules of use: those of journal.Tx; and the caller holds mu of each inode that it updates from
// before update until commit has returned. Used by one goroutine, which keeps it on its stack.
type change struct {
	fs   *FS
	ctx  *Caller
	tx   *journal.Tx
	born *newborn // an inode that comes to be; nil: none
	n    int
	ups  [4]update // a rename's: both directories, what is renamed, and what that replaces
}

// update is what a change makes of one inode.
type update struct {
	in *inode

	Core       layout.Core // the core line as it will be
	ExtentRoot uint64      // block that the extent blocks begin with; 0: none
	XattrRoot  uint64      // block that the list of attributes begins with; 0: none

	stamped             bool   // the times line is written
	set                 uint32 // which of these are not as they were: SetAtime, SetMtime, SetCtime
	atime, mtime, ctime int64

	seen     uint64       // lazy changes of the times that the line includes
	old, now layout.Times // the line as it was, and as it will be

	remap   *remap         // of its extents; nil: none
	swap    *xattrSwap     // of its attributes; nil: none
	added   dirPlace       // of a name that comes; n is 0: none
	name    string         // that comes
	removed dirindex.Entry // of a name that goes, if removes
	removes bool
}

// begin opens a change, on the caller's lane or the next free one.
func (fs *FS) begin(ctx *Caller) change {
	return change{fs: fs, ctx: ctx, tx: fs.journal.Begin(ctx.Lane)}
}

// update returns the update of an inode, the same one whenever it is asked for.
func (c *change) update(in *inode) *update {
	for i := range c.ups[:c.n] {
		if c.ups[i].in == in {
			return &c.ups[i]
		}
	}
	u := &c.ups[c.n]
	c.n++
	u.in, u.Core, u.ExtentRoot, u.XattrRoot = in, in.core, in.troot, in.xroot
	return u
}

// stamp has the times line written, and in it the times that set names (SetAtime, SetMtime,
// SetCtime) be at, in nanoseconds since 1970.
func (u *update) stamp(set uint32, at int64) {
	u.stamped = true
	u.set |= set
	if set&SetAtime != 0 {
		u.atime = at
	}
	if set&SetMtime != 0 {
		u.mtime = at
	}
	if set&SetCtime != 0 {
		u.ctime = at
	}
}

// remap has a settled remap of the inode's extents happen.
func (c *change) remap(u *update, m *remap) {
	u.remap = m
	m.stage(c.tx)
}

// swap has attributes replaced by what is stored already. Not again for nil.
func (c *change) swap(u *update, s *xattrSwap) {
	if s == nil {
		return
	}
	u.swap = s
	u.XattrRoot = s.now.root()
	u.stamped = true
}

// link has a directory name an inode ino of type typ (DT_*), at a place from placeNameLocked, of
// which the block is linked if it is fresh.
func (c *change) link(u *update, p dirPlace, name string, ino uint64, typ uint8) {
	u.added, u.name = p, name
	off := int64(0)
	if p.block != 0 {
		c.remap(u, p.remap)
		b := uint64(p.pos / layout.LinesPerBlock)
		u.Core.Size = max(u.Core.Size, (b+1)<<layout.BlockShift)
		off = int64(p.block)<<layout.BlockShift + int64(p.pos%layout.LinesPerBlock)*layout.LineSize
	} else {
		off = u.in.dir.Off(p.pos)
	}
	nm := []byte(name)
	c.tx.At(off).PutDentryHead(nm, ino, typ)
	for i := 1; i < p.n; i++ {
		c.tx.At(off+int64(i)*layout.LineSize).PutDentryCont(nm, i)
	}
}

// unlink has a directory lose a name.
func (c *change) unlink(u *update, e *dirindex.Entry) {
	u.removed, u.removes = *e, true
	off := u.in.dir.Off(e.Pos)
	for i := range e.Lines() {
		c.tx.At(off + int64(i)*layout.LineSize).ClearDentry()
	}
}

// retarget has a name that a directory has lead to another inode.
func (c *change) retarget(d *inode, e *dirindex.Entry, in *inode) {
	c.tx.At(d.dir.Off(e.Pos)).SetDentryTarget(in.ino, dtype(in.typ))
}

// create has a new inode come to be.
func (c *change) create(n *newborn) {
	c.born = n
	n.in.stageContent(c.tx, n.nd, n.block)
	n.in.core.Put(c.tx.At(n.in.off + layout.InodeCoreOff))
	u := update{in: n.in, XattrRoot: n.in.xroot}
	if n.list != nil {
		u.XattrRoot = n.list.now.root()
	}
	u.stage(c.tx)
	n.in.xroot = u.XattrRoot
}

// commit makes the change durable, and current in DRAM, and ends it either way. An error means that
// nothing has happened, and what the change took is given back; but for a
// journal.DataError. Called with the lane of the change and no other.
func (c *change) commit() error {
	for i := range c.ups[:c.n] {
		u := &c.ups[i]
		if u.Core != u.in.core {
			u.Core.Put(c.tx.At(u.in.off + layout.InodeCoreOff))
		}
		if u.stamped {
			u.stage(c.tx)
		}
	}
	err := c.tx.Commit()
	if !journal.Happened(err) {
		for i := range c.ups[:c.n] {
			c.undo(&c.ups[i])
		}
		if c.born != nil {
			c.born.undo()
		}
		return err
	}
	for i := range c.ups[:c.n] {
		c.apply(&c.ups[i])
	}
	if c.born != nil {
		c.born.done()
	}
	return err
}

// stage writes the times line.
func (u *update) stage(tx *journal.Tx) {
	in := u.in
	u.seen = in.touched.Load() // before the times are read
	u.old = layout.Times{
		Atime: in.atime.Load(), Mtime: in.mtime.Load(), Ctime: in.ctime.Load(), Btime: in.btime,
		ExtentRoot: u.ExtentRoot, XattrRoot: u.XattrRoot,
	}
	u.now = u.old
	if u.set&SetAtime != 0 {
		u.now.Atime = u.atime
	}
	if u.set&SetMtime != 0 {
		u.now.Mtime = u.mtime
	}
	if u.set&SetCtime != 0 {
		u.now.Ctime = u.ctime
	}
	u.now.Put(tx.At(in.off + layout.InodeTimesOff))
}

// apply makes an update current. Who asks for data and holes holds no lock: of a file that grows,
// data is there before the size says so, and of one that shrinks the size goes first.
func (c *change) apply(u *update) {
	in := u.in
	grows := u.Core.Size > in.size.Load()
	if u.remap != nil && grows {
		u.remap.apply()
	}
	in.troot, in.xroot = u.ExtentRoot, u.XattrRoot
	in.core = u.Core
	in.size.Store(u.Core.Size)
	in.flags.Store(u.Core.Flags)
	if in.parent.Load() != u.Core.Parent {
		in.up.Store(nil)
		in.parent.Store(u.Core.Parent)
	}
	if u.stamped { // but for times that a write in place changed meanwhile: they are newer, and stay lazy
		in.atime.CompareAndSwap(u.old.Atime, u.now.Atime)
		in.mtime.CompareAndSwap(u.old.Mtime, u.now.Mtime)
		in.ctime.CompareAndSwap(u.old.Ctime, u.now.Ctime)
		in.live = false
		in.flushed.Store(u.seen)
	}
	if u.remap != nil && !grows {
		u.remap.apply()
	}
	if p := &u.added; p.n != 0 {
		if p.block != 0 {
			p.remap.end()
			in.dir.Link(p.pos/layout.LinesPerBlock, p.block)
		}
		in.dir.Insert(u.name, p.pos, p.n)
	}
	if u.removes {
		in.dir.Remove(&u.removed)
	}
	u.swap.done()
}

// undo gives back what an update took.
func (c *change) undo(u *update) {
	if u.remap != nil {
		u.remap.unstage()
	}
	c.fs.undoPlace(c.ctx, &u.added)
	u.swap.undo()
}
