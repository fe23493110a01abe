package fs

import (
	"slices"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// xattrs is an inode's list of attributes, and the blocks that it is in.
type xattrs struct {
	list  []layout.Xattr
	chain []uint64 // blocks of the list, in order
}

func findXattr(list []layout.Xattr, name string) int {
	return slices.IndexFunc(list, func(x layout.Xattr) bool { return x.Name == name })
}

// root returns the first block of the list; 0: there is no list.
func (xs *xattrs) root() uint64 {
	if len(xs.chain) == 0 {
		return 0
	}
	return xs.chain[0]
}

// blocks returns how many blocks the list and the long values take.
func (xs *xattrs) blocks() uint64 {
	n := uint64(len(xs.chain))
	for _, x := range xs.list {
		for _, r := range x.Runs {
			n += uint64(r.Len)
		}
	}
	return n
}

// loadXattrsLocked reads an inode's attributes. The caller must not change the result. A list of
// several blocks is kept for a while (xattrCache), since otherwise a program that reads each of n
// attributes would take n*n steps. Called with mu held.
func (fs *FS) loadXattrsLocked(in *inode) (xs xattrs, err error) {
	if in.xroot == 0 {
		return xs, nil
	}
	if kept := in.xattrs.Load(); kept != nil {
		return *kept, nil
	}
	if xs, err = fs.walkXattrs(in.ino, in.core.Gen, in.xroot); err != nil {
		return xs, err
	}
	for _, b := range xs.chain {
		if err := fs.taken(in.ino, b, 1, true); err != nil {
			return xattrs{}, err
		}
	}
	for _, x := range xs.list {
		for _, r := range x.Runs {
			if err := fs.taken(in.ino, r.Block, uint64(r.Len), false); err != nil {
				return xattrs{}, err
			}
		}
	}
	if len(xs.chain) > 1 {
		kept := xs
		fs.xattrs.keepLocked(in, &kept)
	}
	return xs, nil
}

// walkXattrs reads the list of attributes that begins with block root. It checks that all blocks
// lie within the filesystem; a damaged chain is an error, never a loop.
func (fs *FS) walkXattrs(ino uint64, gen uint32, root uint64) (xs xattrs, err error) {
	var list []byte
	var buf [layout.BlockSize]byte
	for b := root; b != 0; {
		off := int64(b) << layout.BlockShift
		if b >= fs.sb.Blocks() || off < fs.sb.StaticEnd || len(xs.chain) == layout.XattrBlocksMax {
			return xs, corruptf("block %d of the attributes of inode %d is out of range", b, ino)
		}
		if err := fs.load(off, buf[:]); err != nil {
			return xs, err
		}
		h, part, ok := layout.XattrPart(buf[:], fs.journal.Seed(), off)
		if !ok || h.Owner != ino || h.Gen != gen || int(h.Index) != len(xs.chain) {
			return xs, corruptf("block %d should be block %d of the attributes of inode %d, but its header does not match", b, len(xs.chain), ino)
		}
		list = append(list, part...)
		xs.chain = append(xs.chain, b)
		b = h.Next
	}
	for len(list) > 0 {
		x, rest, ok := layout.NextXattr(list)
		if !ok {
			return xs, corruptf("the attributes of inode %d at block %d cannot be read", ino, root)
		}
		for _, r := range x.Runs {
			if r.Len == 0 || r.Block >= fs.sb.Blocks() || fs.sb.Blocks()-r.Block < uint64(r.Len) || int64(r.Block)<<layout.BlockShift < fs.sb.StaticEnd {
				return xs, corruptf("attribute %q of inode %d has blocks out of range", x.Name, ino)
			}
		}
		xs.list = append(xs.list, x)
		list = rest
	}
	return xs, nil
}

// xattrValue reads the value of attribute x to b, which has the value's length.
func (fs *FS) xattrValue(in *inode, x *layout.Xattr, b []byte) error {
	copy(b, x.Value)
	rest := b
	for _, r := range x.Runs {
		n := min(len(rest), int(r.Len)<<layout.BlockShift)
		if err := fs.bad.Check(r.Block, uint64(r.Len)); err != nil {
			return err
		}
		if err := fs.load(int64(r.Block)<<layout.BlockShift, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if layout.Checksum(fs.journal.Seed(), b) != x.CRC {
		return corruptf("the value of attribute %q of inode %d has a wrong checksum", x.Name, in.ino)
	}
	return nil
}

// disownValue gives back the blocks of a value that no list on the media names any more.
func (fs *FS) disownValue(x *layout.Xattr) {
	for _, r := range x.Runs {
		fs.table.Disown(r.Block, uint64(r.Len), fs.free.idle)
	}
}

// freeXattrs gives back the blocks of a list of attributes that is no longer on the media.
func (fs *FS) freeXattrs(ctx *Caller, xs *xattrs) {
	for _, b := range xs.chain {
		fs.meta.Free(ctx.Lane, b)
	}
	for i := range xs.list {
		fs.disownValue(&xs.list[i])
	}
}
