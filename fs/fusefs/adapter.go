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

// DAX is a mount's choice whether the kernel caches file data, with the values of ext4 and xfs.
type DAX int

const (
	// DAXAlways makes reads and writes bypass the kernel's page cache. It is the default.
	DAXAlways DAX = iota
	// DAXNever lets the kernel cache file data, with write-through.
	DAXNever
	// DAXInode is DAXAlways for files with the DAX flag (chattr +x), and DAXNever for all others.
	// The flag counts at the time when the file is opened.
	DAXInode
)

// String returns the value of the mount option.
func (d DAX) String() string {
	return [...]string{"always", "never", "inode"}[d]
}

// forever is how long the kernel may cache entries and attributes. The daemon is the only writer,
// and every change passes through this kernel.
const forever = 365 * 24 * time.Hour

// Adapter implements fuse.RawFileSystem over a core. It is safe for concurrent use.
type Adapter struct {
	fuse.RawFileSystem // answers ENOSYS to requests that Adapter does not implement

	core *fs.FS
	dax  DAX
	info func() []byte // returns the value of InfoXattr; may be nil

	activity func() []byte // returns the value of ActivityXattr; may be nil; set before the first request

	// grants returns at most most grants with keys from from on, ordered by them; may be nil; set
	// before the first request.
	grants func(from uint64, most int) []Grant

	lastInfo, lastActivity kept.Value[[]byte]
	lastGrants             kept.Value[[]Grant]

	// writeback limits how many requests wait at a time for the kernel to write a file back. The
	// kernel writes back with requests of its own, which need free ring entries.
	writeback fs.Waiters
	slots     sync.Map // *transport.Slot by the request's number, of each slow request that go-fuse serves

	conn     int            // descriptor for notifications; -1 in tests without a kernel
	dropping fs.Waiters     // requests that wait for the kernel to drop pages; limits set before the first request
	late     sync.WaitGroup // goroutines in dropPages after the answer
	lateNow  atomic.Int32   // their number

	calls    sync.Pool // *call
	waiting  sync.Pool // *queue with waits set
	nextLane atomic.Uint32
	handles  atomic.Uint64 // counts file handles, see newHandle
	caching  caching

	server   atomic.Pointer[fuse.Server] // set by Init; nil in tests without a kernel
	protocol *fuse.ProtocolServer        // parses slow requests; set before the first request
	early    earlyInterrupts
	ended    atomic.Bool // the connection has ended, and no caller waits for an answer
	panicked func(any)
}

var _ fuse.RawFileSystem = (*Adapter)(nil)

// droppingMax limits how many requests wait for the kernel to drop pages. The kernel first writes
// back dirty pages with background requests. A connection has 256 background requests at a time
// (Conn.Start), most of which must remain available.
const droppingMax = 64

// New returns an adapter for core. info, if not nil, returns the value of InfoXattr.
func New(core *fs.FS, dax DAX, info func() []byte) *Adapter {
	a := &Adapter{RawFileSystem: fuse.NewDefaultRawFileSystem(), core: core, dax: dax, info: info, conn: -1}
	a.writeback.Total, a.writeback.Each = 16, 8
	a.dropping.Total, a.dropping.Each = droppingMax, droppingMax
	a.lastInfo.Times, a.lastActivity.Times, a.lastGrants.Times = 20, 20, 20
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

// call holds the arguments of the core for one slow request. States: free in the pool -> held by a
// request's goroutine (get) -> free (put).
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

// SlowPath answers a request with a queue that may wait, or with go-fuse if a queue does not know
// the operation.
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

// Panicked is called with the value of a panic in the filesystem.
func (a *Adapter) Panicked(v any) {
	if a.panicked != nil {
		a.panicked(v)
	}
}

// Init is called by go-fuse when the kernel's INIT has been answered.
func (a *Adapter) Init(s *fuse.Server) { a.server.Store(s) }
