package fusefs

import (
	"errors"
	"syscall"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/fs"
)

// A file handle is a number of its own for each open file, with the access mode in its low bits: an
// IOCTL carries neither the flags of the open nor anything else that tells whether its caller may
// read or write.
const handleMode = syscall.O_ACCMODE

// newHandle returns the handle of a file that is opened with flags O_*.
func (a *Adapter) newHandle(flags uint32) uint64 {
	return a.handles.Add(1)*(handleMode+1) | uint64(flags&handleMode)
}

// grant answers protocol.IocGrant. EBADF unless the file is open for what is asked for.
func (a *Adapter) grant(c *call, ino, handle uint64, arg, res []byte) syscall.Errno {
	var q protocol.GrantRequest
	if err := q.Decode(arg[:protocol.GrantSize]); errors.Is(err, protocol.ErrVersion) {
		protocol.EncodeReply(res)
		return 0
	} else if err != nil {
		return syscall.EINVAL
	}
	write := q.Flags&protocol.Write != 0
	switch mode := handle & handleMode; {
	case mode == syscall.O_WRONLY && !write, mode == syscall.O_RDONLY && write:
		return syscall.EBADF
	}
	if e := a.core.GetAttr(&c.ctx, ino, &c.attr); e != 0 {
		return e
	}
	if a.openFlags(c.attr.Flags) != openDirect {
		return syscall.EOPNOTSUPP // the kernel has pages of its own
	}
	d := a.core.Direct()
	g, size, e := d.Grant(&c.ctx, ino, &fs.GrantQuery{
		Lo: q.Offset / 4096, Hi: (q.Offset + q.Length) / 4096, Write: write, Allocate: q.Flags&protocol.Allocate != 0,
		Most: protocol.MaxExtents, Handle: handle, PID: c.ctx.PID,
	})
	if e != 0 {
		return e
	}
	reply, e := d.Reply(g, size)
	if e != 0 {
		return e
	}
	reply.Encode(res[:protocol.GrantSize])
	return 0
}

// command answers protocol.IocConfirm, IocCommit and IocRelease.
func (a *Adapter) command(c *call, ino uint64, cmd uint32, arg, res []byte) syscall.Errno {
	var q protocol.Command
	if err := q.Decode(arg[:protocol.CommandSize]); errors.Is(err, protocol.ErrVersion) {
		protocol.EncodeReply(res)
		return 0
	} else if err != nil {
		return syscall.EINVAL
	}
	e := syscall.Errno(0)
	switch d := a.core.Direct(); cmd {
	case protocol.IocConfirm:
		e = d.Confirm(&c.ctx, ino, q.ID, q.Generation)
	case protocol.IocCommit:
		if e = d.Commit(ino, q.ID); e == 0 {
			a.forgetAttr(ino)
		}
	case protocol.IocRelease:
		e = d.Release(ino, q.ID)
	}
	if e == 0 {
		protocol.EncodeReply(res)
	}
	return e
}
