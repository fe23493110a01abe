package fusefs

import (
	"errors"
	"sync"
	"syscall"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// A file handle is a number of its own for each open file, with the access mode in its low bits: an
// IOCTL carries neither the flags of the open nor anything else that tells whether its caller may
// read or write.
const handleMode = syscall.O_ACCMODE

// handleCached is set in the handle of an open file that the kernel caches.
const handleCached = 1 << 2

// newHandle returns the handle of a file that is opened with flags O_*, and with fopen, the FOPEN_*
// of its answer.
func (a *Adapter) newHandle(flags, fopen uint32) uint64 {
	h := a.handles.Add(1)<<3 | uint64(flags&handleMode)
	if fopen == openCached {
		h |= handleCached
	}
	return h
}

// caching counts the open files that the kernel caches, by inode number. A program's grant and the
// kernel's cache exclude each other. Only a mount with DAXInode needs it.
type caching struct {
	mu       sync.Mutex
	open     map[uint64]int // protected by mu
	granting map[uint64]int // protected by mu: grants that are being made
}

// opens counts an open of a file that is not made direct by its flags. It returns false if the file
// must be opened direct, since a program has a grant of it.
func (c *caching) opens(ino uint64, mapped func(ino uint64) bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.granting[ino] > 0 || mapped(ino) {
		return false
	}
	add(&c.open, ino, 1)
	return true
}

// closed ends an open file that opens has counted.
func (c *caching) closed(ino uint64) {
	c.mu.Lock()
	add(&c.open, ino, -1)
	c.mu.Unlock()
}

// beginGrant returns false if the kernel caches the file. Otherwise the file is opened direct until
// endGrant, and as long as it has a grant.
func (c *caching) beginGrant(ino uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open[ino] > 0 {
		return false
	}
	add(&c.granting, ino, 1)
	return true
}

func (c *caching) endGrant(ino uint64) {
	c.mu.Lock()
	add(&c.granting, ino, -1)
	c.mu.Unlock()
}

// add adds d to the count of an inode.
func add(counts *map[uint64]int, ino uint64, d int) {
	if *counts == nil {
		*counts = map[uint64]int{}
	}
	if (*counts)[ino] += d; (*counts)[ino] <= 0 {
		delete(*counts, ino)
	}
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
	if mode := handle & handleMode; mode == syscall.O_WRONLY && !write || mode == syscall.O_RDONLY && write {
		return syscall.EBADF
	}
	switch a.dax {
	case DAXNever:
		return syscall.EOPNOTSUPP
	case DAXInode:
		if !a.caching.beginGrant(ino) {
			return syscall.EOPNOTSUPP
		}
		defer a.caching.endGrant(ino)
	}
	ask := fs.GrantQuery{
		Lo: q.Offset / layout.BlockSize, Hi: (q.Offset + q.Length) / layout.BlockSize, Write: write, Allocate: q.Flags&protocol.Allocate != 0,
		Most: protocol.MaxExtents, Handle: handle, PID: c.ctx.PID, PageSize: q.PageSize,
	}
	if write && c.ctx.UID != 0 {
		if e := a.core.GetAttr(&c.ctx, ino, &c.attr); e != 0 {
			return e
		}
		if mayKill(&c.ctx, &c.attr) {
			ask.Kill = killBits(&c.ctx, &c.attr)
		}
	}
	d := a.core.Direct()
	g, size, e := d.Grant(&c.ctx, ino, &ask)
	if e != 0 {
		return e
	}
	a.dropCached(c, ino, int64(q.Offset), int64(g.Hi*layout.BlockSize-q.Offset))
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
		var lo, hi int64
		if lo, hi, e = d.Commit(ino, q.ID, int64(q.Offset), int64(q.Length)); e == 0 {
			a.dropCached(c, ino, lo, hi-lo)
		}
	case protocol.IocRelease:
		e = d.Release(ino, q.ID)
	}
	if e == 0 {
		protocol.EncodeReply(res)
	}
	return e
}
