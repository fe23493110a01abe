package fusefs

import (
	"math"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/transport"
)

const nsPerSec = 1_000_000_000

// splitTime turns ns since the epoch into what stat(2) has; seconds before 1970
// are negative, nanoseconds never.
func splitTime(ns int64) (sec uint64, nsec uint32) {
	s, n := ns/nsPerSec, ns%nsPerSec
	if n < 0 {
		s, n = s-1, n+nsPerSec
	}
	return uint64(s), uint32(n)
}

// joinTime is the reverse; a time that 64 bits of nanoseconds do not reach (before
// 1677 or after 2262) becomes the nearest that they do.
func joinTime(sec uint64, nsec uint32) int64 {
	switch s := int64(sec); {
	case s > math.MaxInt64/nsPerSec-1:
		return math.MaxInt64
	case s < math.MinInt64/nsPerSec+1:
		return math.MinInt64
	default:
		return s*nsPerSec + int64(nsec)
	}
}

func putAttr(o *fuse.Attr, a *fs.Attr) {
	*o = fuse.Attr{
		Ino: a.Ino, Size: a.Size, Blocks: a.Blocks, Mode: a.Mode, Nlink: a.Nlink,
		Owner: fuse.Owner{Uid: a.UID, Gid: a.GID}, Rdev: a.Rdev, Blksize: layout.BlockSize,
	}
	o.Atime, o.Atimensec = splitTime(a.Atime)
	o.Mtime, o.Mtimensec = splitTime(a.Mtime)
	o.Ctime, o.Ctimensec = splitTime(a.Ctime)
}

func putAttrOut(o *fuse.AttrOut, a *fs.Attr) {
	o.SetTimeout(forever)
	putAttr(&o.Attr, a)
}

func putEntry(o *fuse.EntryOut, a *fs.Attr) {
	o.NodeId, o.Generation = a.Ino, uint64(a.Gen)
	o.SetEntryTimeout(forever)
	o.SetAttrTimeout(forever)
	putAttr(&o.Attr, a)
}

// Statx answers statx(2) when it asks for more than GetAttr tells: the birth time.
func (a *Adapter) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	if e := a.core.GetAttr(&c.ctx, in.NodeId, &c.attr); e != 0 {
		return status(e)
	}
	at := &c.attr
	out.SetTimeout(forever)
	out.Statx = fuse.Statx{
		Mask: unix.STATX_BASIC_STATS | unix.STATX_BTIME, Blksize: layout.BlockSize,
		Nlink: at.Nlink, Uid: at.UID, Gid: at.GID, Mode: uint16(at.Mode),
		Ino: at.Ino, Size: at.Size, Blocks: at.Blocks,
		// The 32-bit device number is packed as the kernel's new_encode_dev does.
		RdevMajor: at.Rdev >> 8 & 0xfff, RdevMinor: at.Rdev&0xff | at.Rdev>>12&0xfff00,
	}
	out.Atime.Sec, out.Atime.Nsec = splitTime(at.Atime)
	out.Btime.Sec, out.Btime.Nsec = splitTime(at.Btime)
	out.Ctime.Sec, out.Ctime.Nsec = splitTime(at.Ctime)
	out.Mtime.Sec, out.Mtime.Nsec = splitTime(at.Mtime)
	return fuse.OK
}

func (a *Adapter) setattr(c *call, ino uint64, in *transport.SetattrIn, out *fuse.AttrOut) syscall.Errno {
	s := &c.set
	*s = fs.SetAttr{Mode: in.Mode & 07777, UID: in.UID, GID: in.GID, Size: in.Size}
	for _, f := range [...]struct{ fuse, core uint32 }{
		{fuse.FATTR_MODE, fs.SetMode}, {fuse.FATTR_UID, fs.SetUID}, {fuse.FATTR_GID, fs.SetGID},
		{fuse.FATTR_SIZE, fs.SetSize}, {fuse.FATTR_ATIME, fs.SetAtime}, {fuse.FATTR_MTIME, fs.SetMtime},
		{fuse.FATTR_CTIME, fs.SetCtime},
	} {
		if in.Valid&f.fuse != 0 {
			s.Valid |= f.core
		}
	}
	const timeNow = fuse.FATTR_ATIME_NOW | fuse.FATTR_MTIME_NOW
	s.Now = in.Valid&timeNow == timeNow || in.Valid&(fuse.FATTR_ATIME|fuse.FATTR_MTIME) == 0
	now := time.Now().UnixNano()
	s.Atime, s.Mtime, s.Ctime = joinTime(in.Atime, in.Atimensec), joinTime(in.Mtime, in.Mtimensec), joinTime(in.Ctime, in.Ctimensec)
	if in.Valid&fuse.FATTR_ATIME_NOW != 0 {
		s.Atime = now
	}
	if in.Valid&fuse.FATTR_MTIME_NOW != 0 {
		s.Mtime = now
	}
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 {
		s.Valid |= fs.SetKillPriv // a chown does it anyhow
	}
	if s.Valid == 0 { // chown(-1, -1), which changes just what every chown does
		s.Valid = fs.SetKillPriv
	}
	// That a chown's caller has no CAP_FSETID is not said.
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 || s.Valid&(fs.SetUID|fs.SetGID|fs.SetKillPriv) != 0 && c.ctx.UID != 0 {
		if e := a.killSGID(c, ino, s); e != 0 {
			return e
		}
	}
	if e := a.core.SetAttr(&c.ctx, ino, s, &c.attr); e != 0 {
		return e
	}
	putAttrOut(out, &c.attr)
	return 0
}

// killSGID adds SetKillSGID if the caller is not in the group of a file that it matters for.
func (a *Adapter) killSGID(c *call, ino uint64, s *fs.SetAttr) syscall.Errno {
	if e := a.core.GetAttr(&c.ctx, ino, &c.attr); e != 0 {
		return e
	}
	if !fs.NeedsGroups(c.attr.Mode) || c.ctx.GID == c.attr.GID {
		return 0
	}
	if c.ctx.NoWait {
		return syscall.EAGAIN // /proc is not for a queue's thread
	}
	s.Valid |= killBits(&c.ctx, &c.attr) & fs.SetKillSGID
	return 0
}

// StatFs answers statfs(2).
func (a *Adapter) StatFs(cancel <-chan struct{}, h *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	var s fs.StatFS
	c := a.get(cancel, h)
	defer a.put(c)
	a.core.AwaitDeleted(&c.ctx)
	a.core.StatFS(&s)
	*out = fuse.StatfsOut{
		Bsize: s.BlockSize, Frsize: s.BlockSize, Blocks: s.Blocks, Bfree: s.Bfree, Bavail: s.Bavail,
		Files: s.Files, Ffree: s.Ffree, NameLen: s.NameLen,
	}
	return fuse.OK
}
