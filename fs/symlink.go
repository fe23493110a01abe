package fs

import (
	"syscall"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// Symlink creates a symbolic link of 1 to 4095 bytes.
func (fs *FS) Symlink(ctx *Caller, dir uint64, name, target string, a *Attr) syscall.Errno {
	if target == "" {
		return syscall.ENOENT
	}
	if len(target) >= layout.BlockSize {
		return syscall.ENAMETOOLONG
	}
	return fs.create(ctx, dir, name, &node{mode: 0o777 | syscall.S_IFLNK, target: target}, a)
}

// storeTarget stores a long link's target in a fresh block and returns that block, or 0 if the
// target fits the inode.
func (n *newborn) storeTarget() (block uint64, err error) {
	fs, target := n.fs, n.nd.target
	if len(target) <= layout.InlineSize {
		return 0, nil
	}
	var buf [layout.BlockSize]byte
	copy(buf[:], target)
	for range extendTries {
		if fs.reserve.spare(n.ctx.UID, 1) == 0 {
			return 0, errNoSpace
		}
		block, _, ok := fs.alloc.Alloc(0, 1)
		if !ok {
			return 0, errNoSpace
		}
		if err = fs.storeBlock(block, buf[:]); err == nil {
			return block, nil
		}
		news := fs.bad.FreshFaulted(block, 1, err)
		fs.free.idle(block, 1)
		if !news {
			break
		}
	}
	return 0, err
}

// Readlink appends a symbolic link's target to buf.
func (fs *FS) Readlink(ctx *Caller, ino uint64, buf []byte) ([]byte, syscall.Errno) {
	in, e := fs.get(ino)
	if e != 0 {
		return buf, e
	}
	defer fs.put(in, 1)
	if in.typ != syscall.S_IFLNK {
		return buf, syscall.EINVAL
	}
	in.mu.RLock()
	defer in.mu.RUnlock()
	var l layout.Line
	if err := fs.journal.ReadLine(in.off+layout.InodeExtentOff, &l); err != nil {
		return buf, errno(err)
	}
	n := int(in.core.Size)
	fs.accessed(ctx, in)
	if in.core.Format&layout.FormatInline != 0 {
		return append(buf, l.Payload()[:min(n, layout.InlineSize)]...), 0
	}
	e0 := l.Extent(0)
	if n >= layout.BlockSize || e0.Len == 0 || e0.Block >= fs.sb.Blocks() {
		return buf, syscall.EIO
	}
	if err := fs.bad.Check(e0.Block, 1); err != nil {
		return buf, errno(err)
	}
	at := len(buf)
	buf = append(buf, make([]byte, n)...)
	return buf, errno(fs.load(int64(e0.Block)<<layout.BlockShift, buf[at:]))
}
