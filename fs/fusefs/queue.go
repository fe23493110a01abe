package fusefs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/daxfs/daxfs/fs"
	"github.com/daxfs/daxfs/fs/transport"
	"github.com/daxfs/daxfs/pmem"
)

// queue is one transport thread's entry to the core: what its requests need, in one piece.
type queue struct {
	a     *Adapter
	ctx   fs.Context
	attr  fs.Attr
	reply *fs.Reply
}

// Queue makes the entry of the n-th thread, which selects its journal lane.
func (a *Adapter) Queue(n int) transport.Queue {
	return &queue{a: a, ctx: fs.Context{Lane: uint32(n)}, reply: a.core.NewReply()}
}

func (q *queue) enter(h *transport.InHeader) *fs.Context {
	q.ctx = fs.Context{UID: h.UID, GID: h.GID, PID: h.PID, Lane: q.ctx.Lane, NoWait: true}
	return &q.ctx
}

// cold makes what would have to wait a cold request.
func cold(e syscall.Errno) syscall.Errno {
	if e == syscall.EAGAIN {
		return transport.Cold
	}
	return e
}

// Read answers with slices of the mapping, referenced and locked until Done.
func (q *queue) Read(h *transport.InHeader, in *transport.ReadIn) ([][]byte, syscall.Errno) {
	ctx := q.enter(h)
	ctx.NoAtime = in.Flags&unix.O_NOATIME != 0
	e := q.a.core.Read(ctx, h.NodeID, int64(in.Offset), int(in.Size), q.reply)
	return q.reply.Slices(), e
}

// Copy puts what Read returned together.
func (q *queue) Copy(dst []byte) (int, error) { return q.reply.Copy(dst) }

// Done gives back what the reply of a Read held.
func (q *queue) Done() { q.reply.Done() }

// Write stores data into the file.
func (q *queue) Write(h *transport.InHeader, in *transport.WriteIn, data []byte) (int, syscall.Errno) {
	ctx := q.enter(h)
	if in.WriteFlags&fuse.WRITE_KILL_SUIDGID != 0 { // of everybody without CAP_FSETID
		if e := q.a.core.GetAttr(ctx, h.NodeID, &q.attr); e != 0 {
			return 0, e
		} else if fs.KillPriv(q.attr.Mode) != q.attr.Mode {
			return 0, transport.Cold
		}
	}
	ctx.Append, ctx.Writeback = writeKind(in.Flags, in.WriteFlags)
	n, e := q.a.core.Write(ctx, h.NodeID, int64(in.Offset), data)
	if n > 0 {
		e = 0
	}
	return n, cold(e)
}

// Getattr answers stat(2).
func (q *queue) Getattr(h *transport.InHeader, _ *transport.GetattrIn, out *transport.AttrOut) syscall.Errno {
	if e := q.a.core.GetAttr(q.enter(h), h.NodeID, &q.attr); e != 0 {
		return e
	}
	putAttrOut(attrOut(out), &q.attr)
	return 0
}

// Lookup answers a path component.
func (q *queue) Lookup(h *transport.InHeader, name string, out *transport.EntryOut) syscall.Errno {
	return q.a.lookup(q.enter(h), h.NodeID, name, &q.attr, entryOut(out))
}

// Release closes a file: its lazily kept times become durable.
func (q *queue) Release(h *transport.InHeader, _ *transport.ReleaseIn) syscall.Errno {
	q.a.core.Flush(q.enter(h), h.NodeID)
	return 0
}

// Fsync is fsync(2) and fdatasync(2). Of a region in an ordinary file it waits for the disk.
func (q *queue) Fsync(h *transport.InHeader, in *transport.FsyncIn) syscall.Errno {
	if q.a.core.Region().Durability() == pmem.DurableDaemon {
		return transport.Cold
	}
	return q.a.core.Fsync(q.enter(h), h.NodeID, in.FsyncFlags&fsyncDatasync != 0)
}

// Forget gives back n lookups of an inode.
func (q *queue) Forget(nodeID, n uint64) { q.a.core.Forget(nodeID, n) }
