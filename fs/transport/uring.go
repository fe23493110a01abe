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

// CapUring is FUSE_OVER_IO_URING of INIT.
const CapUring = 1 << 41

// UringParameter turns FUSE over io_uring on, for all mounts to come.
const UringParameter = "/sys/module/fuse/parameters/enable_uring"

// ErrUring says why FUSE over io_uring is not there. It comes wrapped in one sentence.
var ErrUring = errors.New("FUSE over io_uring is not available")

// Memory for payloads, in bytes, of all queues, and how many requests a queue takes at once. From
// 128 possible CPUs on each has the least number: another 8 MiB. The system gives only what is
// used, so nothing to a CPU that is not there; and the kernel takes the place that was given back
// last, so what is used is as many as there were requests at a time. They are many because cold
// requests keep theirs.
const (
	uringBudget   = 1 << 30
	uringDepth    = 64
	uringDepthMin = 8
	uringMaxCPUs  = 1024 // each has a thread
)

// Uring is a set of queues, one for each possible CPU, that are ready to be registered with a
// connection. Prepared (NewUring) -> serving (Serve), or closed (Close).
type Uring struct {
	queues []*uringQueue
	begin  chan *Server // closed without any by Close
}

// uringQueue serves the requests that are made on one CPU, by a thread that stays there.
//
// A slow request keeps its place until it is answered; the goroutine that served it leaves it in
// finished and wakes the thread, since no other may use the ring.
type uringQueue struct {
	counters
	call call     // the request that is being served,
	h    InHeader // and its header

	s       *Server
	cpu     int
	depth   int
	fd      int // of the connection
	q       Queue
	ring    *ring
	entries []*uringEntry
	mem     []byte
	ans     answer
	pinned  bool
	poll    poller
	event   int     // eventfd
	woken   [8]byte // what was read from it; the kernel's while the ring runs

	slows    sync.WaitGroup
	mu       sync.Mutex
	finished []slowAnswer // protected by mu
}

// slowAnswer is a slow request that has been served: its answer is in its place.
type slowAnswer struct {
	place int
	call  call
}

// NewUring prepares the queues; what the machine or the kernel lacks is found out here, before
// the kernel is told that it may use them. ErrUring.
func NewUring() (*Uring, error) {
	b, err := os.ReadFile(UringParameter)
	if err != nil {
		return nil, fmt.Errorf("%w: it needs Linux 6.14", ErrUring)
	}
	if strings.TrimSpace(string(b)) != "Y" {
		return nil, fmt.Errorf("%w: turn it on with `echo Y > %s`", ErrUring, UringParameter)
	}
	n, err := cpusThatAre("possible")
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

// uringDepthFor is how many requests each of n queues takes at once.
func uringDepthFor(n int) int { return max(uringDepthMin, min(uringDepth, uringBudget/MaxIO/n)) }

// Depth is how many requests a queue takes at once. A slow request keeps its place until it
// is answered: who waits for other requests must leave places for them.
func (u *Uring) Depth() int { return u.queues[0].depth }

// Close ends the queues. Not after Serve.
func (u *Uring) Close() { close(u.begin) }

// Serve serves the connection of fd, whose INIT was answered with CapUring. FORGET, INTERRUPT and
// what else does not come over the rings is read from /dev/fuse by one more queue. It returns at
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

// live is the thread's life.
func (q *uringQueue) live(begin <-chan *Server, ready chan<- error) {
	runtime.LockOSThread() // and the thread ends with it
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
	q.slows.Wait() // they write to places
}

// open makes the ring, on the queue's thread.
func (q *uringQueue) open() (err error) {
	q.event = -1
	q.pinned = pin(q.cpu) // or it is not there, and few requests come
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

const eventData = ^uint64(0) // of the completion of awaitEvent

// loop registers the places and serves what comes, until the kernel has taken back all.
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
		c, ok := q.ring.completion()
		if !ok && wait == 0 {
			q.poll.idle()
		}
		for ; ok; c, ok = q.ring.completion() {
			switch {
			case c.userData == eventData:
				q.commitFinished()
				awaitEvent(q.next(), q.event, &q.woken, eventData)
			case c.res == 0:
				q.serve(int(c.userData))
			default: // the place is no longer the kernel's
				left--
				switch e := unix.Errno(-c.res); e {
				case unix.ENOTCONN, unix.ECONNABORTED, unix.ENODEV, unix.ECANCELED, unix.ENOENT: // the end, or ENOENT: near it
				default:
					q.s.fail(fmt.Errorf("queue of CPU %d: a place for requests came back: %w", q.cpu, e))
				}
			}
		}
	}
	return nil
}

// serve serves the request in a place.
func (q *uringQueue) serve(i int) {
	e := q.entries[i]
	h := &q.h
	*h = *e.hdr.inHeader() // the answer's header goes to its place
	n, arg := int(e.hdr.ent.payloadSz), 0
	if arg = int(h.Len) - inHeaderSize - n; n > len(e.payload) || arg < 0 || arg > len(e.hdr.opIn) {
		q.s.opt.Warn("a request of %d bytes with a payload of %d is none", h.Len, n)
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
	case silent: // the kernel does not send these here
		q.answer(i, &answer{OutHeader: OutHeader{Unique: h.Unique}})
	}
}

// answer puts the answer into its place and gives that to the kernel.
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

// next is a submission entry to fill in. If there is none, what is filled in is submitted first.
func (q *uringQueue) next() *sqe {
	for {
		if s := q.ring.next(); s != nil {
			return s
		}
		switch q.ring.enter(0) {
		case 0, unix.EINTR, unix.EAGAIN, unix.EBUSY:
		default: // which loop finds, too
			return &sqe{}
		}
	}
}

func (q *uringQueue) commit(i int) {
	q.entries[i].commit(q.next(), q.fd, uint16(q.cpu), uint64(i))
}

// recover ends a request that panicked, if whoever is told of it returns.
func (q *uringQueue) recover(i int, unique uint64) {
	if v := recover(); v != nil {
		q.s.fs.Panicked(v)
		q.answer(i, &answer{OutHeader: OutHeader{Error: -int32(unix.EIO), Unique: unique}})
	}
}

// slow hands the request in a place to a goroutine.
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

// commitFinished gives the answers of slow requests to the kernel.
func (q *uringQueue) commitFinished() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.finished {
		q.commit(c.place)
		e := q.entries[c.place]
		h, n := e.hdr.outHeader(), int(e.hdr.ent.payloadSz)
		c.call.end(h.Error, moved(c.call.opcode, h.Error, n, e.payload))
	}
	q.finished = q.finished[:0]
}
