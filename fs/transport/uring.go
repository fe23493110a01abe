package transport

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// CapUring is the flag FUSE_OVER_IO_URING of INIT.
const CapUring = 1 << 41

// UringParameter is the file that turns FUSE over io_uring on, for all later mounts.
const UringParameter = "/sys/module/fuse/parameters/enable_uring"

// ErrUring is returned where FUSE over io_uring is not available. It is wrapped in one sentence
// that gives the reason.
var ErrUring = errors.New("FUSE over io_uring is not available")

// The budget for payloads, in bytes, of all queues, and how many requests a queue takes at once.
// From 128 possible CPUs on, each queue has the minimum, and each CPU adds 8 MiB. Memory is used
// only once touched, so a CPU that does not exist costs none. The kernel uses the ring entry that
// was given back last, so the memory in use is that of the most requests at a time. There are many
// entries because slow requests keep theirs.
const (
	uringBudget   = 1 << 30
	uringDepth    = 64
	uringDepthMin = 8
	uringMaxCPUs  = 1024 // each CPU has a thread
)

// Uring is a set of queues, one for each possible CPU, that can be registered with a connection.
// States: prepared (NewUring) -> serving (Serve), or prepared -> closed (Close).
type Uring struct {
	queues []*uringQueue
	begin  chan *Server // Serve sends the server to each queue; Close closes the channel
}

// uringQueue serves the requests that are made on one CPU, with a thread that is bound to that CPU.
//
// A slow request keeps its ring entry until it is answered. The goroutine that served it adds the
// entry to finished and wakes the thread, since no other thread may use the ring.
type uringQueue struct {
	counters
	call call     // the request being served
	h    InHeader // its header

	s       *Server
	cpu     int
	depth   int // requests at a time
	fd      int // descriptor of the connection
	q       Queue
	ring    *ring
	entries []*uringEntry
	mem     []byte
	ans     answer
	pinned  bool // the thread is bound to cpu
	poll    poller
	event   int     // eventfd that wakes the thread; -1: none
	woken   [8]byte // buffer for reading event; owned by the kernel while the ring runs

	slows    sync.WaitGroup
	mu       sync.Mutex
	finished []slowAnswer // protected by mu
}

// slowAnswer is a slow request that has been served; the answer is in its ring entry.
type slowAnswer struct {
	entry int
	call  call
}

// NewUring prepares the queues, before the kernel is told that it may use them. It returns
// ErrUring, wrapped, if the machine or the kernel lacks anything that they need.
func NewUring() (*Uring, error) {
	b, err := os.ReadFile(UringParameter)
	if err != nil {
		return nil, fmt.Errorf("%w: it needs Linux 6.14", ErrUring)
	}
	if strings.TrimSpace(string(b)) != "Y" {
		return nil, fmt.Errorf("%w: turn it on with `echo Y > %s`", ErrUring, UringParameter)
	}
	n, err := cpusInState("possible")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUring, err)
	}
	if n > uringMaxCPUs {
		return nil, fmt.Errorf("%w: this machine may have %d CPUs, more than %d", ErrUring, n, uringMaxCPUs)
	}
	depth := uringDepthFor(n)
	u := &Uring{begin: make(chan *Server)}
	ready := make(chan error)
	for cpu := range n {
		q := &uringQueue{cpu: cpu, depth: depth}
		u.queues = append(u.queues, q)
		go q.live(u.begin, ready)
	}
	for range n {
		if e := <-ready; e != nil && err == nil {
			err = fmt.Errorf("%w: %w", ErrUring, e)
		}
	}
	if err != nil {
		u.Close()
		return nil, err
	}
	return u, nil
}

// uringDepthFor returns how many requests each of n queues takes at once.
func uringDepthFor(n int) int { return max(uringDepthMin, min(uringDepth, uringBudget/MaxIO/n)) }

// Depth returns how many requests a queue takes at once. A slow request keeps its ring entry until
// it is answered, so requests that wait for other requests must leave entries free.
func (u *Uring) Depth() int { return u.queues[0].depth }

// Close ends the queues. It must not be called after Serve.
func (u *Uring) Close() { close(u.begin) }

// Serve serves the connection of fd, whose INIT was answered with CapUring. One more queue reads
// FORGET, INTERRUPT and whatever else does not come over the rings from /dev/fuse. Serve returns at
// once.
func (u *Uring) Serve(fd int, fs Filesystem, o Options) *Server {
	s := newServer(fs, o)
	s.done.Add(len(u.queues))
	for i, q := range u.queues {
		q.s, q.fd, q.q = s, fd, fs.Queue(i)
		if q.pinned {
			s.load.add(&q.poll, &source{})
		}
		s.counters = append(s.counters, &q.counters)
	}
	for range u.queues {
		u.begin <- s
	}
	go s.dev(fd, fs.Queue(len(u.queues)), -1, nil).loop()
	return s
}

// live is the body of the queue's thread. It makes the ring, reports the result on ready, and
// serves once it gets a server from begin.
func (q *uringQueue) live(begin <-chan *Server, ready chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	err := q.open()
	defer q.close()
	ready <- err
	if err != nil {
		return
	}
	s, ok := <-begin
	if !ok {
		return
	}
	defer s.done.Done()
	if err := q.loop(); err != nil {
		q.s.fail(fmt.Errorf("queue of CPU %d: %w", q.cpu, err))
	}
	q.slows.Wait() // slow requests write to ring entries
}

// open makes the ring. The queue's thread calls it, since a ring belongs to its maker.
func (q *uringQueue) open() (err error) {
	q.event = -1
	q.pinned = pin(q.cpu) // false: the CPU does not exist or is not allowed, and few requests come from it
	if q.ring, err = newRing(); err != nil {
		return err
	}
	if q.entries, q.mem, err = newEntries(q.depth); err != nil {
		return err
	}
	if q.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	return nil
}

func (q *uringQueue) close() {
	if q.ring != nil {
		q.ring.close()
	}
	if q.mem != nil {
		unmapMemory(q.mem)
	}
	if q.event >= 0 {
		_ = unix.Close(q.event)
	}
}

const eventData = ^uint64(0) // userData of awaitEvent's completion

// loop registers the ring entries and serves requests, until the kernel has given all entries back.
func (q *uringQueue) loop() error {
	for i, e := range q.entries {
		e.register(q.next(), q.fd, uint16(q.cpu), uint64(i))
	}
	awaitEvent(q.next(), q.event, &q.woken, eventData)
	for left := len(q.entries); left > 0; {
		wait := uintptr(1)
		if q.poll.awake() {
			wait = 0
		}
		switch e := q.ring.enter(wait); e {
		case 0, unix.EINTR, unix.EAGAIN, unix.EBUSY:
		default:
			return fmt.Errorf("io_uring_enter: %w", e)
		}
		done, ok := q.ring.completion()
		if !ok && wait == 0 {
			q.poll.idle()
		}
		for ; ok; done, ok = q.ring.completion() {
			switch {
			case done.userData == eventData:
				q.commitFinished()
				awaitEvent(q.next(), q.event, &q.woken, eventData)
			case done.res == 0:
				q.serve(int(done.userData))
			default: // the kernel has given the entry back
				left--
				switch e := unix.Errno(-done.res); e {
				// The connection has ended, or is about to end (ENOENT).
				case unix.ENOTCONN, unix.ECONNABORTED, unix.ENODEV, unix.ECANCELED, unix.ENOENT:
				default:
					q.s.fail(fmt.Errorf("queue of CPU %d: a ring entry came back: %w", q.cpu, e))
				}
			}
		}
	}
	return nil
}

// serve serves the request in ring entry i.
func (q *uringQueue) serve(i int) {
	e := q.entries[i]
	h := &q.h
	*h = *e.hdr.inHeader() // a copy, since the answer's header overwrites it
	n, arg := int(e.hdr.ent.payloadSz), 0
	if arg = int(h.Len) - inHeaderSize - n; n > len(e.payload) || arg < 0 || arg > len(e.hdr.opIn) {
		q.s.opt.Warn("malformed FUSE request: length %d with a payload of %d bytes, which does not fit its ring entry; answered with EIO", h.Len, n)
		q.answer(i, &answer{OutHeader: OutHeader{Error: -int32(unix.EIO), Unique: h.Unique}})
		return
	}
	n -= int(h.TotalExtlen) * 8
	q.call = q.begin(h, e.hdr.opIn[:arg], e.payload[:max(n, 0)], q.s.opt.Trace)
	q.poll.came(q.call.since)
	defer q.recover(i, h.Unique)
	q.ans.room = e.payload
	switch serve(q.q, h, e.hdr.opIn[:arg], e.payload[:max(n, 0)], &q.ans) {
	case slow:
		q.slow(i, h, arg)
	case answered:
		q.answer(i, &q.ans)
	case silent: // not sent over rings
		q.answer(i, &answer{OutHeader: OutHeader{Unique: h.Unique}})
	}
}

// answer puts the answer into ring entry i and gives the entry to the kernel.
func (q *uringQueue) answer(i int, a *answer) {
	e := q.entries[i]
	n := len(a.body)
	if n > 0 && &a.body[0] != &e.payload[0] {
		copy(e.payload, a.body)
	}
	*e.hdr.outHeader() = OutHeader{Len: outHeaderSize + uint32(n), Error: a.Error, Unique: a.Unique}
	e.hdr.ent.payloadSz = uint32(n)
	q.commit(i)
	q.call.end(a.Error, moved(q.call.opcode, a.Error, n, e.payload))
}

// next returns a submission entry to fill in. If the queue is full, it submits the filled entries
// first.
func (q *uringQueue) next() *sqe {
	for {
		if s := q.ring.next(); s != nil {
			return s
		}
		switch q.ring.enter(0) {
		case 0, unix.EINTR, unix.EAGAIN, unix.EBUSY:
		default: // loop gets the same error
			return &sqe{}
		}
	}
}

// commit gives ring entry i, with its answer, to the kernel at the next enter.
func (q *uringQueue) commit(i int) {
	q.entries[i].commit(q.next(), q.fd, uint16(q.cpu), uint64(i))
}

// recover answers a request that panicked with EIO, provided that Filesystem.Panicked returns.
func (q *uringQueue) recover(i int, unique uint64) {
	if v := recover(); v != nil {
		q.s.fs.Panicked(v)
		q.answer(i, &answer{OutHeader: OutHeader{Error: -int32(unix.EIO), Unique: unique}})
	}
}

// slow hands the request in ring entry i to a goroutine. arg is the size in bytes of its
// operation's structure.
func (q *uringQueue) slow(i int, h *InHeader, arg int) {
	e := q.entries[i]
	k := q.call.take()
	unique := h.Unique
	q.slows.Add(1)
	q.s.slows.start(func(answer []byte) {
		defer q.slows.Done()
		out, n := OutHeader{Len: outHeaderSize, Error: -int32(unix.EIO), Unique: unique}, 0
		if h := as[OutHeader](answer); h != nil && len(answer)-outHeaderSize <= len(e.payload) {
			out = *h
			n = copy(e.payload, answer[outHeaderSize:])
		}
		*e.hdr.outHeader() = out
		e.hdr.ent.payloadSz = uint32(n)
		q.mu.Lock()
		q.finished = append(q.finished, slowAnswer{i, k})
		first := len(q.finished) == 1
		q.mu.Unlock()
		if first {
			_, _ = unix.Write(q.event, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		}
	}, bytesOf(h), e.hdr.opIn[:arg], e.payload[:e.hdr.ent.payloadSz])
}

// commitFinished gives the answers of finished slow requests to the kernel.
func (q *uringQueue) commitFinished() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.finished {
		q.commit(c.entry)
		e := q.entries[c.entry]
		h, n := e.hdr.outHeader(), int(e.hdr.ent.payloadSz)
		c.call.end(h.Error, moved(c.call.opcode, h.Error, n, e.payload))
	}
	q.finished = q.finished[:0]
}
