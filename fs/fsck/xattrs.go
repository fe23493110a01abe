package fsck

import (
	"fmt"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// xattrLook is the content of an inode's attribute blocks, up to the first damage.
type xattrLook struct {
	chain []uint64
	runs  []layout.XattrRun
	names []string // names of the attributes, by run
	bad   string   // the damage; "" if there is none
}

// xattrs checks an inode's extended attributes and claims their blocks. The repair for unreadable
// attributes removes all attributes of the inode. The values' checksums are not checked, as file
// data is not: a reader gets the error.
func (p *pass) xattrs(ino uint64, io int64, k *xattrLook) {
	if k == nil {
		return
	}
	bad := p.claimXattrs(k)
	for i, r := range k.runs {
		if bad == "" {
			p.lostValue(ino, r, k.names[i])
		}
	}
	if bad != "" {
		to := io + layout.InodeTimesOff
		p.problem(InodeXattr, ino, to, p.edit(to, func(l *layout.Line) {
			var t layout.Times
			t.Get(l)
			t.XattrRoot = 0
			t.Put(l)
		}), "the extended attributes of inode %d %s", ino, bad)
	}
}

// claimXattrs claims the attributes' blocks, and returns what is wrong with the attributes, or "".
func (p *pass) claimXattrs(k *xattrLook) string {
	for _, b := range k.chain {
		if p.used.has(b) {
			return fmt.Sprintf("have block %d, which has another owner", b)
		}
		p.used.set(b)
		p.rep.XattrBlocks++
	}
	for i, r := range k.runs {
		if bad := p.claimData(r.Block, uint64(r.Len)); bad != "" {
			return fmt.Sprintf("have a value of %q that %s", k.names[i], bad)
		}
	}
	return k.bad
}

// lookXattrs reads the attributes from the block root on. A chain is finite, since the index
// increases by one with each block, up to layout.XattrBlocksMax.
func (p *pass) lookXattrs(ino uint64, gen uint32, root uint64) *xattrLook {
	k := new(xattrLook)
	k.bad = p.xattrChain(k, ino, gen, root)
	return k
}

// xattrChain reads the attributes into k, and returns what is wrong with them, or "".
func (p *pass) xattrChain(k *xattrLook, ino uint64, gen uint32, root uint64) string {
	var list []byte
	buf := make([]byte, layout.BlockSize)
	for b, i := root, uint32(0); b != 0; i++ {
		if i == layout.XattrBlocksMax {
			return fmt.Sprintf("take more than %d blocks", i)
		}
		if !p.metaBlock(b) {
			return fmt.Sprintf("have block %d, which is not an ordinary block of a metadata chunk", b)
		}
		off := int64(b) << layout.BlockShift
		if err := p.block(b, buf); err != nil {
			return fmt.Sprintf("have block %d, which cannot be read: %v", b, err)
		}
		h, part, ok := layout.XattrPart(buf, p.seed, off)
		if !ok || h.Owner != ino || h.Gen != gen || h.Index != i {
			return fmt.Sprintf("have block %d, which is not the next block of their chain", b)
		}
		k.chain = append(k.chain, b)
		list = append(list, part...)
		b = h.Next
	}
	names := map[string]bool{}
	for len(list) > 0 {
		x, rest, ok := layout.NextXattr(list)
		if !ok {
			return "have a malformed entry"
		}
		if names[x.Name] {
			return fmt.Sprintf("have the name %q twice", x.Name)
		}
		names[x.Name] = true
		for _, r := range x.Runs {
			k.runs, k.names = append(k.runs, r), append(k.names, x.Name)
		}
		list = rest
	}
	return ""
}

// claimData claims a run of data blocks, and returns why it cannot, or "".
func (p *pass) claimData(block, n uint64) string {
	blocks := p.sb.Blocks()
	if n == 0 || block < uint64(p.sb.StaticEnd)>>layout.BlockShift || block >= blocks || blocks-block < n {
		return "is outside the filesystem"
	}
	for ch := p.chunkOf(block); ch <= p.chunkOf(block+n-1); ch++ {
		if p.meta.has(ch) {
			return fmt.Sprintf("overlaps metadata chunk %d", ch)
		}
	}
	if p.used.hasAny(block, n) {
		return fmt.Sprintf("has blocks %d..%d, one of which has another owner", block, block+n-1)
	}
	p.used.setRun(block, n)
	p.rep.DataBlocks += n
	return ""
}
