package fs

import (
	"runtime"
	"slices"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// xattrSwap is a change of an inode's attributes under way. The new list is stored, and a change
// with the times line is to link it (change.swap).
type xattrSwap struct {
	fs       *FS
	ctx      *Caller
	in       *inode
	old, now xattrs
	fresh    []layout.XattrRun // runs of values that were just stored, and are not linked yet
	gone     []layout.Xattr    // attributes that are linked, and will not be
}

// swapXattrsLocked stores the attributes that edit makes from an inode's. After an error everything
// is as it was. Called with mu held, and no lane.
//
// Persistence order:
//  1. NT-store a long value into fresh blocks (edit)
//  2. by the same thread, NT-store the new list into fresh metadata blocks, SFENCE each
//  3. the caller's transaction: the times line with the new root
//  4. only then are the old list, and long old values, free (done)
func (fs *FS) swapXattrsLocked(ctx *Caller, in *inode, edit func(s *xattrSwap) error) (*xattrSwap, error) {
	old, err := fs.loadXattrsLocked(in)
	if err != nil {
		return nil, err
	}
	s := &xattrSwap{fs: fs, ctx: ctx, in: in, old: old, now: xattrs{list: slices.Clone(old.list)}}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err = edit(s); err == nil {
		err = s.store()
	}
	if err != nil {
		s.undo()
		return nil, err
	}
	return s, nil
}

// undo gives back what a swap took, after a transaction that was not committed.
func (s *xattrSwap) undo() {
	if s == nil {
		return
	}
	fs := s.fs
	for _, b := range s.now.chain {
		fs.meta.Free(s.ctx.Lane, b)
	}
	for _, r := range s.fresh {
		fs.free.idle(r.Block, uint64(r.Len))
	}
}

// done is step 4 of swapXattrsLocked.
func (s *xattrSwap) done() {
	if s == nil {
		return
	}
	fs := s.fs
	fs.xattrs.drop(s.in)
	s.in.acls = nil
	for _, r := range s.fresh {
		fs.table.Own(r.Block, uint64(r.Len))
	}
	s.in.blocks.Add(s.now.blocks() - s.old.blocks())
	for _, b := range s.old.chain {
		fs.meta.Free(s.ctx.Lane, b)
	}
	for i := range s.gone {
		fs.disownValue(&s.gone[i])
	}
}

// find returns the index of an attribute in the list, or -1.
func (s *xattrSwap) find(name string) int { return findXattr(s.now.list, name) }

// remove takes an attribute off the new list, and reports whether it was there.
func (s *xattrSwap) remove(name string) bool {
	i := s.find(name)
	if i < 0 {
		return false
	}
	s.gone = append(s.gone, s.now.list[i])
	s.now.list = slices.Delete(s.now.list, i, i+1)
	return true
}

// set gives an attribute a value. It stores a long value in fresh blocks.
func (s *xattrSwap) set(name string, value []byte) error {
	x := layout.Xattr{Name: name, Len: uint32(len(value)), CRC: layout.Checksum(s.fs.journal.Seed(), value)}
	if len(value) <= layout.XattrInline {
		x.Value = value
	} else {
		runs, err := s.storeValue(value)
		if err != nil {
			return err
		}
		x.Runs = runs
		s.fresh = append(s.fresh, runs...)
	}
	if i := s.find(name); i >= 0 {
		s.gone = append(s.gone, s.now.list[i])
		s.now.list[i] = x
	} else {
		s.now.list = append(s.now.list, x)
	}
	return nil
}

// store is step 2 of swapXattrsLocked. After an error, now.chain holds the blocks that were
// allocated.
func (s *xattrSwap) store() error {
	fs, in := s.fs, s.in
	var b []byte
	for i := range s.now.list {
		b = s.now.list[i].Append(b)
	}
	n := (len(b) + layout.XattrBlockBytes - 1) / layout.XattrBlockBytes
	if n > layout.XattrBlocksMax {
		return errNoSpace
	}
	for range n {
		block, err := fs.meta.Alloc(s.ctx.Lane, s.ctx.UID, 0)
		if err != nil {
			return err
		}
		s.now.chain = append(s.now.chain, block)
	}
	for i, block := range s.now.chain {
		part := b[i*layout.XattrBlockBytes : min(len(b), (i+1)*layout.XattrBlockBytes)]
		h := layout.XattrBlock{Index: uint32(i), Owner: in.ino, Gen: in.core.Gen, Bytes: uint32(len(part))}
		if i+1 < n {
			h.Next = s.now.chain[i+1]
		}
		off := int64(block) << layout.BlockShift
		if err := fs.journal.FormatBlock(off, func(b []byte, seq uint64) { h.Format(b, part, fs.journal.Seed(), off, seq) }); err != nil {
			return err
		}
	}
	return nil
}

// storeValue is step 1 of swapXattrsLocked: it stores a long value in fresh blocks. The list that
// names the value is stored and fenced next.
func (s *xattrSwap) storeValue(value []byte) (runs []layout.XattrRun, err error) {
	for range extendTries {
		if runs, err = s.tryStoreValue(value); err != errBadBlocks {
			return runs, err
		}
	}
	return nil, err
}

func (s *xattrSwap) tryStoreValue(value []byte) (runs []layout.XattrRun, err error) {
	fs := s.fs
	for left := blocksOf(int64(len(value))); left > 0 && err == nil; {
		block, n, ok := fs.alloc.Alloc(0, fs.reserve.spare(s.ctx.UID, left))
		if !ok {
			err = errNoSpace
			break
		}
		runs = append(runs, layout.XattrRun{Block: block, Len: uint32(n)})
		left -= n
	}
	if err == nil {
		err = s.storeRuns(runs, value)
	}
	if err != nil {
		for _, r := range runs {
			if fs.bad.FreshFaulted(r.Block, uint64(r.Len), err) {
				err = errBadBlocks // try again with other blocks
			}
			fs.free.idle(r.Block, uint64(r.Len))
		}
		return nil, err
	}
	return runs, nil
}

func (s *xattrSwap) storeRuns(runs []layout.XattrRun, value []byte) error {
	for _, r := range runs {
		n := min(len(value), int(r.Len)<<layout.BlockShift)
		if err := s.fs.r.NTStore(int64(r.Block)<<layout.BlockShift, value[:n]); err != nil {
			return err
		}
		value = value[n:]
	}
	return nil
}
