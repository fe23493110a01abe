package fs

import (
	"runtime"
	"slices"

	"github.com/daxfs/daxfs/fs/layout"
)

// xattrSwap is a change of an inode's attributes on its way: what they will be is stored,
// and inode.xroot names it, for a transaction with the times line to link.
type xattrSwap struct {
	in       *inode
	old, now xattrs
}

// swapXattrs stores the attributes that edit makes of an inode's. With an error everything
// is as it was. Called with mu held, and no lane.
//
// Persistence order:
//  1. NT-store a long value into fresh blocks (edit)
//  2. by the same thread, NT-store the new list into fresh metadata blocks, SFENCE each
//  3. the caller's transaction: the times line with the new root
//  4. only then are the old list, and old values that were long, free (done)
func (fs *FS) swapXattrs(ctx *Context, in *inode, edit func(xs *xattrs) error) (*xattrSwap, error) {
	old, err := fs.loadXattrs(in)
	if err != nil {
		return nil, err
	}
	s := &xattrSwap{in: in, old: old, now: xattrs{list: slices.Clone(old.list)}}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err = edit(&s.now); err == nil {
		s.now.chain, err = fs.storeXattrs(ctx, in, s.now.list)
	}
	if err != nil {
		s.undo(ctx, fs)
		return nil, err
	}
	in.xroot = s.now.root()
	fs.xattrs.drop(in)
	return s, nil
}

// undo is for a transaction that was not committed.
func (s *xattrSwap) undo(ctx *Context, fs *FS) {
	if s == nil {
		return
	}
	s.in.xroot = s.old.root()
	fs.xattrs.drop(s.in)
	for _, b := range s.now.chain {
		fs.freeMeta(ctx, b)
	}
	for _, r := range s.now.fresh {
		fs.freeIdle(r.Block, uint64(r.Len))
	}
}

// done is step 4.
func (s *xattrSwap) done(ctx *Context, fs *FS) {
	if s == nil {
		return
	}
	s.in.acls = nil
	for _, r := range s.now.fresh {
		fs.table.Own(r.Block, uint64(r.Len))
	}
	s.in.blocks.Add(s.now.blocks() - s.old.blocks())
	for _, b := range s.old.chain {
		fs.freeMeta(ctx, b)
	}
	for i := range s.now.gone {
		fs.disownValue(&s.now.gone[i])
	}
}

// storeXattrs is step 2 of swapXattrs. With an error come the blocks that were allocated.
func (fs *FS) storeXattrs(ctx *Context, in *inode, list []layout.Xattr) (chain []uint64, err error) {
	var b []byte
	for i := range list {
		b = list[i].Append(b)
	}
	n := (len(b) + layout.XattrBlockBytes - 1) / layout.XattrBlockBytes
	if n > layout.XattrBlocksMax {
		return nil, errNoSpace
	}
	for range n {
		block, err := fs.allocMeta(ctx, 0)
		if err != nil {
			return chain, err
		}
		chain = append(chain, block)
	}
	for i, block := range chain {
		part := b[i*layout.XattrBlockBytes : min(len(b), (i+1)*layout.XattrBlockBytes)]
		h := layout.XattrBlock{Index: uint32(i), Owner: in.ino, Gen: in.core.Gen, Bytes: uint32(len(part))}
		if i+1 < n {
			h.Next = chain[i+1]
		}
		off := int64(block) << layout.BlockShift
		if err := fs.formatBlock(off, func(b []byte, seq uint64) { h.Format(b, part, fs.seed, off, seq) }); err != nil {
			return chain, err
		}
	}
	return chain, nil
}

// storeValue is step 1 of swapXattrs: a long value in fresh blocks. The list that names it is stored, and
// fenced, next.
func (fs *FS) storeValue(ctx *Context, value []byte) (runs []layout.XattrRun, err error) {
	for range extendTries {
		if runs, err = fs.tryStoreValue(ctx, value); err != errBadBlocks {
			return runs, err
		}
	}
	return nil, err
}

func (fs *FS) tryStoreValue(ctx *Context, value []byte) (runs []layout.XattrRun, err error) {
	for left := blocksOf(int64(len(value))); left > 0 && err == nil; {
		block, n, ok := fs.alloc.Alloc(0, fs.spare(ctx.UID, left))
		if !ok {
			err = errNoSpace
			break
		}
		runs = append(runs, layout.XattrRun{Block: block, Len: uint32(n)})
		left -= n
	}
	if err == nil {
		err = fs.storeRuns(runs, value)
	}
	if err != nil {
		for _, r := range runs {
			if fs.freshFailed(run{r.Block, uint64(r.Len)}, err) {
				err = errBadBlocks // but elsewhere
			}
			fs.freeIdle(r.Block, uint64(r.Len))
		}
		return nil, err
	}
	return runs, nil
}

func (fs *FS) storeRuns(runs []layout.XattrRun, value []byte) error {
	for _, r := range runs {
		n := min(len(value), int(r.Len)<<layout.BlockShift)
		if err := fs.r.NTStore(int64(r.Block)<<layout.BlockShift, value[:n]); err != nil {
			return err
		}
		value = value[n:]
	}
	return nil
}
