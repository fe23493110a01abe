package fusefs

import (
	"encoding/binary"
	"math"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// The commands of ioctl(2) that are answered, with the sizes that the kernel's FUSE encodes in
// them. The kernel itself queries flags with FS_IOC_GETFLAGS; a program's own FS_IOC_GETFLAGS never
// gets here.
const (
	iocGetFlags   = 0x80086601 // FS_IOC_GETFLAGS: an int, although the command encodes a long
	iocSetFlags   = 0x40086602 // FS_IOC_SETFLAGS
	iocGetXFlags  = 0x801c581f // FS_IOC_FSGETXATTR: a struct fsxattr
	iocSetXFlags  = 0x401c5820 // FS_IOC_FSSETXATTR
	iocTrim       = 0xc0185879 // FITRIM: a struct fstrim_range
	fsxattrSize   = 28
	trimRangeSize = 24

	// IocExtents fills ExtentsSize bytes with the extents of an open file or directory. The first 8
	// bytes of the argument are the file offset in bytes to start from. Extents decodes the result.
	IocExtents  = 3<<30 | ExtentsSize<<16 | 'D'<<8 | 1
	ExtentsSize = 8192
)

// xflags maps the FS_XFLAG_* of struct fsxattr to inode flags.
var xflags = [...]struct{ x, flag uint32 }{
	{0x8, layout.FlagImmutable}, {0x10, layout.FlagAppend}, {0x20, layout.FlagSync},
	{0x40, layout.FlagNoAtime}, {0x80, layout.FlagNoDump}, {0x200, layout.FlagProjInherit}, {0x8000, layout.FlagDAX},
}

// Ioctl answers the commands above, and ENOTTY to all others.
func (a *Adapter) Ioctl(cancel <-chan struct{}, in *fuse.IoctlIn, arg []byte, out *fuse.IoctlOut, res []byte) fuse.Status {
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	short := func(in, out int) bool { return len(arg) < in || len(res) < out }
	e := syscall.ENOTTY
	switch in.Cmd {
	case iocGetFlags:
		if e = a.core.GetAttr(&c.ctx, in.NodeId, &c.attr); e == 0 {
			if short(0, 4) {
				return fuse.EINVAL
			}
			clear(res)
			binary.NativeEndian.PutUint32(res, c.attr.Flags)
		}
	case iocSetFlags:
		if short(4, 0) {
			return fuse.EINVAL
		}
		e = a.setFlags(c, in.NodeId, binary.NativeEndian.Uint32(arg))
	case iocGetXFlags:
		if short(0, fsxattrSize) {
			return fuse.EINVAL
		}
		e = a.getXFlags(c, in.NodeId, res)
	case iocSetXFlags:
		if short(fsxattrSize, 0) {
			return fuse.EINVAL
		}
		e = a.setXFlags(c, in.NodeId, arg)
	case iocTrim:
		if short(trimRangeSize, trimRangeSize) {
			return fuse.EINVAL
		}
		e = a.trim(c, arg, res)
	case IocExtents:
		if short(8, ExtentsSize) {
			return fuse.EINVAL
		}
		e = a.extents(c, in.NodeId, arg, res)
	case protocol.IocGrant:
		if short(protocol.GrantSize, protocol.GrantSize) {
			return fuse.EINVAL
		}
		e = a.grant(c, in.NodeId, in.Fh, arg, res)
	case protocol.IocConfirm, protocol.IocCommit, protocol.IocRelease:
		if short(protocol.CommandSize, protocol.CommandSize) {
			return fuse.EINVAL
		}
		e = a.command(c, in.NodeId, in.Cmd, arg, res)
	}
	return status(e)
}

// The FS_XFLAG_* of an extent size hint: of a file, and of a directory, which gives it to new
// files.
const (
	xflagExtSize        = 0x800
	xflagExtSizeInherit = 0x1000
)

// getXFlags fills res with a struct fsxattr: the flags, the extent size hint, the number of extents
// and the project.
func (a *Adapter) getXFlags(c *call, ino uint64, res []byte) syscall.Errno {
	if e := a.core.GetAttr(&c.ctx, ino, &c.attr); e != 0 {
		return e
	}
	x, n := uint32(0), uint32(0)
	for _, f := range xflags {
		if c.attr.Flags&f.flag != 0 {
			x |= f.x
		}
	}
	if m := c.attr.Mode & syscall.S_IFMT; m == syscall.S_IFREG || m == syscall.S_IFDIR {
		extents, e := a.core.CountExtents(&c.ctx, ino)
		if e != 0 {
			return e
		}
		n = uint32(min(extents, math.MaxUint32))
	}
	if c.attr.Hint != fs.NoHint {
		if x |= xflagExtSize; c.attr.Mode&syscall.S_IFMT == syscall.S_IFDIR {
			x ^= xflagExtSize | xflagExtSizeInherit
		}
	}
	clear(res)
	binary.NativeEndian.PutUint32(res, x)
	binary.NativeEndian.PutUint32(res[4:], uint32(a.core.HintSize(c.attr.Hint)))
	binary.NativeEndian.PutUint32(res[8:], n)
	binary.NativeEndian.PutUint32(res[12:], c.attr.Proj)
	return 0
}

// setXFlags sets the flags, the extent size hint and the project from a struct fsxattr. The kernel
// has checked that the hint's flag is for this type of inode, and cleared it if the size is 0.
func (a *Adapter) setXFlags(c *call, ino uint64, arg []byte) syscall.Errno {
	x, flags := binary.NativeEndian.Uint32(arg), uint32(0)
	for _, f := range xflags {
		if x&f.x != 0 {
			flags |= f.flag
		}
		x &^= f.x
	}
	size := uint32(0)
	if x&(xflagExtSize|xflagExtSizeInherit) != 0 {
		size = binary.NativeEndian.Uint32(arg[4:])
	}
	x &^= 0x80000000 | xflagExtSize | xflagExtSizeInherit // FS_XFLAG_HASATTR is read-only
	if x != 0 || binary.NativeEndian.Uint32(arg[16:]) != 0 {
		return syscall.EOPNOTSUPP // other flags, or a hint for the extents of copies
	}
	hint, ok := a.core.HintOf(uint64(size))
	if !ok {
		return syscall.EINVAL
	}
	proj := binary.NativeEndian.Uint32(arg[12:])
	e := a.core.SetFlagsAndHint(&c.ctx, ino, flags, hint, &proj)
	if e == 0 {
		a.forgetAttr(ino)
	}
	return e
}

// setFlags also makes the kernel drop the attributes, since it does not expect the ctime to change.
func (a *Adapter) setFlags(c *call, ino uint64, flags uint32) syscall.Errno {
	e := a.core.SetFlags(&c.ctx, ino, flags, nil)
	if e == 0 {
		a.forgetAttr(ino)
	}
	return e
}

// trimGroup is the largest minimum extent in bytes that FITRIM accepts: the size of an ext4 block
// group.
const trimGroup = 128 << 20

// trim answers FITRIM. There is no device to trim, so it reports 0 bytes. It rejects the same
// arguments as ext4 (ext4_trim_fs).
func (a *Adapter) trim(c *call, arg, res []byte) syscall.Errno {
	if c.ctx.UID != 0 {
		return syscall.EPERM
	}
	var s fs.StatFS
	a.core.StatFS(&s)
	start, n, least := binary.NativeEndian.Uint64(arg), binary.NativeEndian.Uint64(arg[8:]), binary.NativeEndian.Uint64(arg[16:])
	if start>>layout.BlockShift >= s.Blocks || n < layout.BlockSize || least>>layout.BlockShift > trimGroup>>layout.BlockShift {
		return syscall.EINVAL
	}
	copy(res, arg[:trimRangeSize])
	binary.NativeEndian.PutUint64(res[8:], 0)
	return 0
}

// Extent is one extent of a file, as Extents returns it. All offsets and sizes are in bytes.
type Extent struct {
	Logical   uint64 `json:"logical"`
	Region    uint64 `json:"region_offset"`
	Length    uint64 `json:"length"`
	Folio     uint64 `json:"folio"` // size of the folios that contain the extent
	Unwritten bool   `json:"unwritten"`
	Shared    bool   `json:"shared"`
}

const extentSize = 32 // bytes: logical, region offset, length, flags and order, 8 bytes each

// extents fills res with the extents from the byte offset in arg on.
func (a *Adapter) extents(c *call, ino uint64, arg, res []byte) syscall.Errno {
	from := binary.NativeEndian.Uint64(arg)
	clear(res)
	n := 0
	return a.core.Folios(&c.ctx, ino, from>>layout.BlockShift, func(x fs.ExtentInfo) bool {
		if (n+1)*extentSize > ExtentsSize {
			return false
		}
		b := res[n*extentSize:]
		binary.NativeEndian.PutUint64(b, x.Logical<<layout.BlockShift)
		binary.NativeEndian.PutUint64(b[8:], x.Block<<layout.BlockShift)
		binary.NativeEndian.PutUint64(b[16:], x.Len<<layout.BlockShift)
		flags := uint64(x.Order) << 8
		if x.Unwritten {
			flags |= 1
		}
		if x.Shared {
			flags |= 2
		}
		binary.NativeEndian.PutUint64(b[24:], flags)
		n++
		return true
	})
}

// merge appends y to x, and reports whether y directly continues x. The daemon reports an extent of
// very many folios in pieces.
func (x *Extent) merge(y *Extent) bool {
	z := *x
	z.Length += y.Length
	if y.Logical != x.Logical+x.Length || y.Region != x.Region+x.Length || y.Folio != x.Folio || y.Unwritten != x.Unwritten || y.Shared != x.Shared {
		return false
	}
	*x = z
	return true
}

// Extents asks the daxfsd that serves an open file or directory for its extents. It returns ENOTTY
// if the file is not on a daxfsd.
func Extents(fd int) (all []Extent, err error) {
	buf := make([]byte, ExtentsSize)
	for from := uint64(0); ; {
		clear(buf)
		binary.NativeEndian.PutUint64(buf, from)
		if err := ioctl(fd, IocExtents, buf); err != nil {
			return nil, err
		}
		n := 0
		for ; n < ExtentsSize/extentSize; n++ {
			b := buf[n*extentSize:]
			x := Extent{Logical: binary.NativeEndian.Uint64(b), Region: binary.NativeEndian.Uint64(b[8:]), Length: binary.NativeEndian.Uint64(b[16:])}
			if x.Length == 0 {
				return all, nil
			}
			flags := binary.NativeEndian.Uint64(b[24:])
			x.Unwritten, x.Shared, x.Folio = flags&1 != 0, flags&2 != 0, layout.BlockSize<<(flags>>8&0x3f)
			from = x.Logical + x.Length
			if k := len(all) - 1; k < 0 || !all[k].merge(&x) {
				all = append(all, x)
			}
		}
	}
}
