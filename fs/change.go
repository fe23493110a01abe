package fs

import (
	"github.com/daxfsd/daxfsd/fs/dirindex"
	"github.com/daxfsd/daxfsd/fs/journal"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// change is a transaction together with its effects in DRAM. Its lines are staged in the journal's
// transaction. commit writes them, and then applies all effects to DRAM, or gives back what they
// took. There is no separate call that could be forgotten.
//
//	c := fs.begin(ctx)
//	u := c.update(in)
//	u.Core.Nlink++
//	u.stamp(SetCtime, now)
//	err := c.commit()
//
// The rules of journal.Tx hold. The caller also holds mu of each inode that it updates, from before
// update until commit has returned. One goroutine uses a change, and keeps it on its stack.
type change struct {
	fs   *FS
	ctx  *Caller
	tx   *journal.Tx
	born *newborn  // a new inode; nil: none
	n    int       // of ups
	ups  [4]update // a rename updates both directories, the moved inode and the replaced one
}

// update holds the effects of a change on one inode.
type update struct {
	in *inode

	Core       layout.Core // the new core line
	ExtentRoot uint64      // block number of the first extent block; 0: none
	XattrRoot  uint64      // block number of the first block of the attribute list; 0: none

	stamped             bool   // the times line is written
	set                 uint32 // times that change: SetAtime, SetMtime, SetCtime
	atime, mtime, ctime int64  // ns since the epoch

	seen     uint64       // count of lazy updates (inode.touched) that the line includes
	old, now layout.Times // the line before and after

	remap   *remap         // of the inode's extents; nil: none
	swap    *xattrSwap     // of the inode's attributes; nil: none
	added   dirPlace       // the place of a new name; n is 0: none
	name    string         // the new name
	removed dirindex.Entry // the removed name, if removes is set
	removes bool
}

// begin opens a change, on the caller's lane or the next free lane.
func (fs *FS) begin(ctx *Caller) change {
	return change{fs: fs, ctx: ctx, tx: fs.journal.Begin(ctx.Lane)}
}

// update returns the update of an inode; further calls return the same one.
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

// stamp makes the change write the times line, with time at (ns since the epoch) for each time in
// set (SetAtime, SetMtime, SetCtime).
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

// remap adds a settled remap of the inode's extents.
func (c *change) remap(u *update, m *remap) {
	u.remap = m
	m.stage(c.tx)
}

// swap adds a swap of the inode's attributes, which are already stored. nil: no effect.
func (c *change) swap(u *update, s *xattrSwap) {
	if s == nil {
		return
	}
	u.swap = s
	u.XattrRoot = s.now.root()
	u.stamped = true
}

// link adds a name to a directory: it leads to inode ino of type typ (DT_*). p comes from
// placeNameLocked; if its block is fresh, the block is linked too.
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

// unlink removes a name from a directory.
func (c *change) unlink(u *update, e *dirindex.Entry) {
	u.removed, u.removes = *e, true
	off := u.in.dir.Off(e.Pos)
	for i := range e.Lines() {
		c.tx.At(off + int64(i)*layout.LineSize).ClearDentry()
	}
}

// retarget makes a directory's existing name lead to another inode.
func (c *change) retarget(d *inode, e *dirindex.Entry, in *inode) {
	c.tx.At(d.dir.Off(e.Pos)).SetDentryTarget(in.ino, dtype(in.typ))
}

// create adds a new inode.
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

// commit makes the change durable and current in DRAM, and ends it in any case. After an error
// nothing has changed in DRAM, and everything that the change took is given back. A
// journal.DataError is the exception: the change has happened, but some file data is not on the
// media. Called with the lane of the change and no other.
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

// stage writes the times line into the transaction.
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

// apply makes an update current in DRAM. SEEK_DATA and SEEK_HOLE hold no lock, so the order
// matters: if a file grows, its extents come before its size; if it shrinks, its size comes first.
func (c *change) apply(u *update) {
	in := u.in
	grows := u.Core.Size > in.size.Load()
	if u.remap != nil && grows {
		u.remap.apply()
	}
	in.troot, in.xroot = u.ExtentRoot, u.XattrRoot
	if gainsPriv(in.core.Mode, u.Core.Mode) {
		c.fs.direct.stale(in)
	}
	in.core = u.Core
	if in.size.Swap(u.Core.Size) != u.Core.Size {
		c.fs.direct.resized(in)
	}
	in.flags.Store(u.Core.Flags)
	if in.parent.Load() != u.Core.Parent {
		in.up.Store(nil)
		in.parent.Store(u.Core.Parent)
	}
	if u.stamped { // a time that a write in place changed meanwhile is newer, and stays lazy
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
