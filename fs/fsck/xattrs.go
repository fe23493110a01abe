package fsck

import (
	"fmt"

	"github.com/daxfs/daxfs/fs/layout"
)

// xattrs checks an inode's extended attributes and claims their blocks. What cannot be
// read is mended by taking all of the inode's attributes away. Values are not compared
// with their checksums: as a file's data, whoever reads them is told.
func (p *pass) xattrs(ino uint64, io int64, gen uint32, root uint64) {
	if root == 0 {
		return
	}
	if bad := p.xattrChain(ino, gen, root); bad != "" {
		to := io + layout.InodeTimesOff
		p.problem(InodeXattr, ino, to, p.edit(to, func(l *layout.Line) {
			var t layout.Times
			t.Get(l)
			t.XattrRoot = 0
			t.Put(l)
		}), "the extended attributes of inode %d %s", ino, bad)
	}
}

// xattrChain says what is wrong with the attributes from root on; "" if nothing is.
func (p *pass) xattrChain(ino uint64, gen uint32, root uint64) string {
	var list []byte
	buf := make([]byte, layout.BlockSize)
	for b, i := root, uint32(0); b != 0; i++ {
		switch {
		case i == layout.XattrBlocksMax:
			return fmt.Sprintf("take more than %d blocks", i)
		case !p.metaBlock(b):
			return fmt.Sprintf("have block %d, which is not an ordinary block of a metadata chunk", b)
		case p.used.hasAny(b, 1):
			return fmt.Sprintf("have block %d, which belongs to somebody else", b)
		}
		off := int64(b) << layout.BlockShift
		if err := p.block(b, buf); err != nil {
			return fmt.Sprintf("have block %d, which cannot be read: %v", b, err)
		}
		h, part, ok := layout.XattrPart(buf, p.seed, off)
		if !ok || h.Owner != ino || h.Gen != gen || h.Index != i {
			return fmt.Sprintf("have block %d, which is not the one that should stand there", b)
		}
		p.used.set(b)
		p.rep.XattrBlocks++
		list = append(list, part...)
		b = h.Next
	}
	names := map[string]bool{}
	for len(list) > 0 {
		x, rest, ok := layout.NextXattr(list)
		if !ok {
			return "have an entry that is not one"
		}
		if names[x.Name] {
			return fmt.Sprintf("have the name %q twice", x.Name)
		}
		names[x.Name] = true
		for _, r := range x.Runs {
			if bad := p.claimData(r.Block, uint64(r.Len)); bad != "" {
				return fmt.Sprintf("have a value of %q that %s", x.Name, bad)
			}
		}
		list = rest
	}
	return ""
}

// claimData claims a run of data blocks, or says why it is not one.
func (p *pass) claimData(block, n uint64) string {
	blocks := p.sb.Blocks()
	if n == 0 || block < uint64(p.sb.StaticEnd)>>layout.BlockShift || block >= blocks || blocks-block < n {
		return "lies outside the filesystem"
	}
	for ch := p.chunkOf(block); ch <= p.chunkOf(block+n-1); ch++ {
		if p.meta.has(ch) {
			return fmt.Sprintf("reaches into metadata chunk %d", ch)
		}
	}
	if p.used.hasAny(block, n) {
		return fmt.Sprintf("has blocks %d..%d, of which one belongs to somebody else", block, block+n-1)
	}
	p.used.setRun(block, n)
	p.rep.DataBlocks += n
	return ""
}
