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

// splitTime converts ns since the epoch to the seconds and nanoseconds of stat(2). Before 1970 the
// seconds are negative; the nanoseconds never are.
func splitTime(ns int64) (sec uint64, nsec uint32) {
	s, n := ns/nsPerSec, ns%nsPerSec
	if n < 0 {
		s, n = s-1, n+nsPerSec
	}
	return uint64(s), uint32(n)
}

// joinTime is the inverse of splitTime. A time out of the range of 64 bits of ns (before 1677 or
// after 2262) becomes the nearest time in the range.
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

// attrTimeout returns how long the kernel may cache the attributes of an inode: not while programs
// store to the file without any request.
func (a *Adapter) attrTimeout(ino uint64) time.Duration {
	if a.core.Direct().Stores(ino) {
		return 0
	}
	return forever
}

func (a *Adapter) putAttrOut(o *fuse.AttrOut, at *fs.Attr) {
	o.SetTimeout(a.attrTimeout(at.Ino))
	putAttr(&o.Attr, at)
}

func (a *Adapter) putEntry(o *fuse.EntryOut, at *fs.Attr) {
	o.NodeId, o.Generation = at.Ino, uint64(at.Gen)
	o.SetEntryTimeout(forever)
	o.SetAttrTimeout(a.attrTimeout(at.Ino))
	putAttr(&o.Attr, at)
}

// Statx answers statx(2) if it asks for the birth time, which GetAttr does not return.
func (a *Adapter) Statx(cancel <-chan struct{}, in *fuse.StatxIn, out *fuse.StatxOut) fuse.Status {
	c := a.get(cancel, &in.InHeader)
	defer a.put(c)
	if e := a.core.GetAttr(&c.ctx, in.NodeId, &c.attr); e != 0 {
		return status(e)
	}
	at := &c.attr
	out.SetTimeout(a.attrTimeout(in.NodeId))
	out.Statx = fuse.Statx{
		Mask: unix.STATX_BASIC_STATS | unix.STATX_BTIME, Blksize: layout.BlockSize,
		Nlink: at.Nlink, Uid: at.UID, Gid: at.GID, Mode: uint16(at.Mode),
		Ino: at.Ino, Size: at.Size, Blocks: at.Blocks,
		// The 32-bit device number is packed as by the kernel's new_encode_dev.
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
		s.Valid |= fs.SetKillPriv // chown clears the bits in any case
	}
	if s.Valid == 0 { // chown(-1, -1), which only clears what every chown clears
		s.Valid = fs.SetKillPriv
	}
	// A chown request does not contain whether its caller has CAP_FSETID.
	if in.Valid&fuse.FATTR_KILL_SUIDGID != 0 || s.Valid&(fs.SetUID|fs.SetGID|fs.SetKillPriv) != 0 && c.ctx.UID != 0 {
		if e := a.killSGID(c, ino, s); e != 0 {
			return e
		}
	}
	if e := a.core.SetAttr(&c.ctx, ino, s, &c.attr); e != 0 {
		return e
	}
	a.putAttrOut(out, &c.attr)
	return 0
}

// killSGID adds SetKillSGID to s if the caller is not in the file's group and the file's mode makes
// that matter. It returns EAGAIN if /proc must be read and the caller may not wait.
func (a *Adapter) killSGID(c *call, ino uint64, s *fs.SetAttr) syscall.Errno {
	if e := a.core.GetAttr(&c.ctx, ino, &c.attr); e != 0 {
		return e
	}
	if !fs.NeedsGroups(c.attr.Mode) || c.ctx.GID == c.attr.GID {
		return 0
	}
	if c.ctx.NoWait {
		return syscall.EAGAIN // a queue's thread must not read /proc
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
