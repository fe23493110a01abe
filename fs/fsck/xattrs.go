package fsck

import (
	"fmt"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// xattrLook is what the blocks of an inode's attributes say, up to what is wrong with them.
type xattrLook struct {
	chain []uint64
	runs  []layout.XattrRun
	names []string // of the attribute, by run
	bad   string   // "" if nothing is
}

// xattrs checks an inode's extended attributes and claims their blocks. What cannot be
// read is mended by taking all of the inode's attributes away. Values are not compared
// with their checksums: as a file's data, whoever reads them is told.
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

// claimXattrs says what is wrong with the attributes; "" if nothing is.
func (p *pass) claimXattrs(k *xattrLook) string {
	for _, b := range k.chain {
		if p.used.has(b) {
			return fmt.Sprintf("have block %d, which belongs to somebody else", b)
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

// lookXattrs reads the attributes from root on. A chain ends, since each block must have
// the next index.
func (p *pass) lookXattrs(ino uint64, gen uint32, root uint64) *xattrLook {
	k := new(xattrLook)
	k.bad = p.xattrChain(k, ino, gen, root)
	return k
}

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
			return fmt.Sprintf("have block %d, which is not the one that should stand there", b)
		}
		k.chain = append(k.chain, b)
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
			k.runs, k.names = append(k.runs, r), append(k.names, x.Name)
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
