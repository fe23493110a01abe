package fusefs

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/transport"
	"github.com/daxfsd/daxfsd/internal/kept"
)

// DAX is the cache choice of a mount, by the convention of ext4 and xfs.
type DAX int

const (
	// DAXAlways: read and write bypass the kernel's page cache. The default.
	DAXAlways DAX = iota
	// DAXNever: file data is cached by the kernel, writes go through.
	DAXNever
	// DAXInode: as DAXAlways for files with the DAX flag (chattr +x), as DAXNever for others.
	// A file goes by the flag it has when it is opened.
	DAXInode
)

// String is the value of the mount option.
func (d DAX) String() string {
	return [...]string{"always", "never", "inode"}[d]
}

// forever is how long the kernel may keep entries and attributes: we are the
// only writer and every change passes through this kernel.
const forever = 365 * 24 * time.Hour

// Adapter implements fuse.RawFileSystem over a core. Its methods are safe for
// concurrent use.
type Adapter struct {
	fuse.RawFileSystem // ENOSYS for what is not implemented

	core *fs.FS
	dax  DAX
	info func() []byte // value of InfoXattr; may be nil

	activity func() []byte // value of ActivityXattr; may be nil; set before any request comes

	lastInfo, lastActivity kept.Value[[]byte]

	// writeback bounds for how many requests the kernel writes a file back at a time. That comes as
	// requests, too, for which there must be places.
	writeback fs.Waiters
	slots     sync.Map // *transport.Slot of each slow request that go-fuse serves, by number

	conn     int            // where notifications go; -1 in tests without a kernel
	dropping fs.Waiters     // requests that wait for the kernel to drop pages; changed before any comes
	late     sync.WaitGroup // of dropPages after the answer,
	lateNow  atomic.Int32   // and how many they are

	calls    sync.Pool // *call
	waiting  sync.Pool // *queue that waits
	nextLane atomic.Uint32

	server   atomic.Pointer[fuse.Server] // set by Init; nil in tests without a kernel
	protocol *fuse.ProtocolServer        // of slow requests; set before any comes
	early    earlyInterrupts
	ended    atomic.Bool // the connection: nobody waits for an answer
	panicked func(any)
}

var _ fuse.RawFileSystem = (*Adapter)(nil)

// droppingMax bounds the requests that wait for the kernel to drop pages. It first writes dirty
// ones back, by requests in the background, of which the connection has 256 at a time (Conn.Start):
// most must be left.
const droppingMax = 64

// New returns an adapter for core. info, if not nil, yields the value of
// InfoXattr.
func New(core *fs.FS, dax DAX, info func() []byte) *Adapter {
	a := &Adapter{RawFileSystem: fuse.NewDefaultRawFileSystem(), core: core, dax: dax, info: info, conn: -1}
	a.writeback.Total, a.writeback.Each = 16, 8
	a.dropping.Total, a.dropping.Each = droppingMax, droppingMax
	a.lastInfo.Times, a.lastActivity.Times = 20, 20
	a.waiting.New = func() any { return a.newQueue(a.nextLane.Add(1)-1, true) }
	a.calls.New = func() any {
		// A pool keeps its objects per CPU, so the lane of a call is nearly always
		// the lane of the CPU it runs on.
		c := &call{}
		c.ctx.Lane = a.nextLane.Add(1) - 1
		return c
	}
	return a
}

// call is what one slow request needs from the core. Free in the pool -> held by the
// goroutine of a request (get) -> free (put).
type call struct {
	ctx  fs.Caller
	attr fs.Attr
	set  fs.SetAttr
}

func (a *Adapter) get(cancel <-chan struct{}, h *fuse.InHeader) *call {
	c := a.calls.Get().(*call)
	c.ctx = fs.Caller{UID: h.Uid, GID: h.Gid, PID: h.Pid, Lane: c.ctx.Lane, Cancel: a.cancelOf(h, cancel)}
	if s, ok := a.slots.Load(h.Unique); ok {
		c.ctx.Away = s.(*transport.Slot).Wait
	}
	return c
}

func (a *Adapter) put(c *call) {
	c.ctx.Cancel, c.ctx.Away, c.ctx.Bypass = nil, nil, nil
	a.calls.Put(c)
}

func status(e syscall.Errno) fuse.Status { return fuse.Status(e) }

// String names the filesystem type.
func (a *Adapter) String() string { return Type }

// SlowPath answers a request by a queue that may wait, or by go-fuse.
func (a *Adapter) SlowPath(in, out []byte, s *transport.Slot) int {
	if len(in) == interruptSize && binary.NativeEndian.Uint32(in[4:]) == opInterrupt {
		a.interrupt(in)
		return 0
	}
	q := a.waiting.Get().(*queue)
	q.away = s.Wait
	n, ok := transport.Serve(q, in, out)
	q.away = nil
	a.waiting.Put(q)
	if ok {
		return n
	}
	if len(in) >= 16 {
		unique := binary.NativeEndian.Uint64(in[8:])
		a.slots.Store(unique, s)
		defer a.slots.Delete(unique)
	}
	n, _ = a.protocol.HandleRequest([][]byte{in}, [][]byte{out})
	return n
}

// Panicked is told of a panic in the filesystem.
func (a *Adapter) Panicked(v any) {
	if a.panicked != nil {
		a.panicked(v)
	}
}

// Init is called by go-fuse when the kernel's INIT has been answered.
func (a *Adapter) Init(s *fuse.Server) { a.server.Store(s) }
