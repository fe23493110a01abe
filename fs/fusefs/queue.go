package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/transport"
	"github.com/daxfsd/daxfsd/pmem"
)

// queue is the entry to the core for one thread, or for a goroutine that serves a slow request. It
// holds what requests need in one allocation.
type queue struct {
	call
	a     *Adapter
	pin   *fs.PinnedRead
	waits bool         // requests may wait and take long; the queue belongs to a goroutine
	away  func(func()) // the current request's fs.Caller.Away
}

// Queue makes the entry for the n-th thread. n selects its journal lane.
func (a *Adapter) Queue(n int) transport.Queue { return a.newQueue(uint32(n), false) }

func (a *Adapter) newQueue(lane uint32, waits bool) *queue {
	q := &queue{a: a, pin: a.core.NewPinnedRead(), waits: waits}
	q.ctx.Lane = lane
	return q
}

func (q *queue) enter(h *transport.InHeader) *call {
	q.ctx = fs.Caller{UID: h.UID, GID: h.GID, PID: h.PID, Lane: q.ctx.Lane, NoWait: !q.waits, Away: q.away}
	return &q.call
}

// orSlow turns EAGAIN, which means that the request would have to wait, into SlowPath.
func orSlow(e syscall.Errno) syscall.Errno {
	if e == syscall.EAGAIN {
		return transport.SlowPath
	}
	return e
}

// Read copies file data from the region to out.
func (q *queue) Read(h *transport.InHeader, in *transport.ReadIn, out []byte) (int, syscall.Errno) {
	ctx := &q.enter(h).ctx
	ctx.NoAtime = in.Flags&unix.O_NOATIME != 0
	ctx.Fill = fills(in.ReadFlags)
	if e := q.a.core.Read(ctx, h.NodeID, int64(in.Offset), len(out), q.pin); e != 0 {
		return 0, orSlow(e)
	}
	return q.pin.Take(out)
}

// Write stores data to the file.
func (q *queue) Write(h *transport.InHeader, in *transport.WriteIn, data []byte) (int, syscall.Errno) {
	ctx := &q.enter(h).ctx
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 { // set for all callers without CAP_FSETID
		if e := q.a.core.GetAttr(ctx, h.NodeID, &q.attr); e != 0 {
			return 0, orSlow(e)
		} else if !mayKill(ctx, &q.attr) {
		} else if !q.waits {
			return 0, transport.SlowPath
		} else if e := q.a.kill(&q.call, h.NodeID); e != 0 {
			return 0, e
		}
	}
	ctx.Append, ctx.Writeback = writeKind(in.Flags, in.WriteFlags)
	ctx.Direct = direct(in.WriteFlags)
	n, e := q.a.core.Write(ctx, h.NodeID, int64(in.Offset), data)
	q.a.endBypass(&q.call, h.NodeID)
	return n, orSlow(e)
}

// Release answers the last close(2) of an open file, and makes lazily kept times durable.
func (q *queue) Release(h *transport.InHeader, in *transport.ReleaseIn) syscall.Errno {
	q.a.released(h.NodeID, in.Fh)
	q.a.core.Release(&q.enter(h).ctx, h.NodeID, in.Flags)
	return 0
}

// Fsync answers fsync(2) and fdatasync(2). With a region in an ordinary file it waits for the disk,
// so it is a slow request.
func (q *queue) Fsync(h *transport.InHeader, in *transport.FsyncIn) syscall.Errno {
	if !q.waits && q.a.core.Region().Durability() == pmem.DurableDaemon {
		return transport.SlowPath
	}
	return q.a.core.Fsync(&q.enter(h).ctx, h.NodeID, in.FsyncFlags&fsyncDatasync != 0)
}

// Forget drops n lookups of an inode.
func (q *queue) Forget(nodeID, n uint64) { q.a.core.Forget(nodeID, n) }

// Lookup looks up a path component.
func (q *queue) Lookup(h *transport.InHeader, name string, out *transport.EntryOut) syscall.Errno {
	return orSlow(q.a.lookup(q.enter(h), h.NodeID, name, entryOut(out)))
}

// Getattr answers stat(2).
func (q *queue) Getattr(h *transport.InHeader, _ *transport.GetattrIn, out *transport.AttrOut) syscall.Errno {
	if e := q.a.core.GetAttr(&q.enter(h).ctx, h.NodeID, &q.attr); e != 0 {
		return orSlow(e)
	}
	q.a.putAttrOut(attrOut(out), &q.attr)
	return 0
}

// Setattr answers chmod, chown, utimensat and truncate.
func (q *queue) Setattr(h *transport.InHeader, in *transport.SetattrIn, out *transport.AttrOut) syscall.Errno {
	return orSlow(q.a.setattr(q.enter(h), h.NodeID, in, attrOut(out)))
}

// Open opens a file.
func (q *queue) Open(h *transport.InHeader, in *transport.OpenIn, out *transport.OpenOut) syscall.Errno {
	return orSlow(q.a.open(q.enter(h), h.NodeID, in.Flags, out))
}

// Create makes and opens a file.
func (q *queue) Create(h *transport.InHeader, in *transport.CreateIn, name string, out *transport.CreateOut) (e syscall.Errno) {
	c := q.enter(h)
	c.ctx.Umask = in.Umask
	out.Open.Fh, out.Open.OpenFlags, e = q.a.create(c, h.NodeID, name, in.Flags, in.Mode, entryOut(&out.Entry))
	return orSlow(e)
}

// Mkdir creates a directory.
func (q *queue) Mkdir(h *transport.InHeader, in *transport.MkdirIn, name string, out *transport.EntryOut) syscall.Errno {
	return orSlow(q.a.mkdir(q.enter(h), h.NodeID, name, in.Mode, in.Umask, entryOut(out)))
}

// Symlink creates a symbolic link.
func (q *queue) Symlink(h *transport.InHeader, name, target string, out *transport.EntryOut) syscall.Errno {
	c := q.enter(h)
	return orSlow(q.a.entry(c, entryOut(out), q.a.core.Symlink(&c.ctx, h.NodeID, name, target, &c.attr)))
}

// Link creates another name for an inode.
func (q *queue) Link(h *transport.InHeader, in *transport.LinkIn, name string, out *transport.EntryOut) syscall.Errno {
	c := q.enter(h)
	return orSlow(q.a.entry(c, entryOut(out), q.a.core.Link(&c.ctx, in.Oldnodeid, h.NodeID, name, &c.attr)))
}

// Unlink removes a name of a file.
func (q *queue) Unlink(h *transport.InHeader, name string) syscall.Errno {
	return orSlow(q.a.core.Unlink(&q.enter(h).ctx, h.NodeID, name))
}

// Rmdir removes an empty directory.
func (q *queue) Rmdir(h *transport.InHeader, name string) syscall.Errno {
	return orSlow(q.a.core.Rmdir(&q.enter(h).ctx, h.NodeID, name))
}

// Rename answers rename(2) and renameat2(2).
func (q *queue) Rename(h *transport.InHeader, in *transport.Rename2In, from, to string) syscall.Errno {
	return orSlow(q.a.core.Rename(&q.enter(h).ctx, h.NodeID, from, in.Newdir, to, in.Flags))
}

// Readlink reads a symbolic link.
func (q *queue) Readlink(h *transport.InHeader, out []byte) (int, syscall.Errno) {
	b, e := q.a.core.Readlink(&q.enter(h).ctx, h.NodeID, out[:0])
	return len(b), e
}

// readdirMax is how many bytes of a directory's list a queue answers at a time: as many as the C
// libraries ask for. A longer answer would block the queue's other requests for milliseconds.
const readdirMax = 32 << 10

// Readdir lists a directory.
func (q *queue) Readdir(h *transport.InHeader, in *transport.ReadIn, plus bool, out []byte) (int, syscall.Errno) {
	out = out[:min(len(out), readdirMax)]
	l := fuse.NewDirEntryList(out, in.Offset)
	e := q.a.readdir(q.enter(h), h.NodeID, in.Offset, in.Flags, plus, l)
	return len(l.Bytes()), orSlow(e)
}
