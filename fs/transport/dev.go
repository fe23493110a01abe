package transport

import (
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// Options are the options of a transport.
type Options struct {
	Warn  func(format string, a ...any) // called with anything unexpected that the kernel does
	Abort func()                        // aborts the connection
	// Trace, if not nil, is called with every request after it has been answered, by any goroutine.
	Trace func(*Request)

	NoPoll bool // queues sleep at once when there is no request (see poller)
}

// Server serves one connection. States: serving (from Dev or Uring.Serve) -> ended by the kernel,
// through an unmount or an abort (Wait returns).
type Server struct {
	fs   Filesystem
	opt  Options
	done sync.WaitGroup // queues and slow requests
	end  sync.Once      // guards Filesystem.Ended: called once per connection
	fds  []int          // cloned descriptors, closed by Wait
	load *load          // nil: no queue polls

	counters []*counters // of the queues; immutable once Dev or Uring.Serve has returned

	slows *slowRequests
}

// devQueue is one thread that serves requests from /dev/fuse.
type devQueue struct {
	counters
	call call // the request being served

	s *Server
	// fd is where the request being served was read from and where its answer goes: sleep or look.
	fd    int
	sleep int // blocking descriptor
	look  int // non-blocking clone of sleep, for polling
	poll  poller
	cpu   int // the CPU that the thread is bound to if it polls; -1: none
	q     Queue
	mem   []byte // the mapping that contains buf
	buf   []byte // a request; answers of READ and READDIR reuse the place of a WRITE's data
	iov   [2]unix.Iovec
	ans   answer
}

// readSize is the size in bytes of the buffer that a read from /dev/fuse needs.
const readSize = inHeaderSize + writeInSize + MaxIO

// Dev serves the connection of fd, a descriptor of /dev/fuse after INIT, with n queues. It returns
// at once.
func Dev(fd int, fs Filesystem, n int, o Options) *Server {
	s := newServer(fs, o)
	cpus, from := allowedCPUs(), &source{}
	from.cpus, _ = cpusInState("online")
	queues := make([]*devQueue, n)
	for i := range queues {
		qfd := fd
		if i > 0 {
			if c, err := cloneOf(fd, 0); err == nil {
				qfd = c
				s.fds = append(s.fds, c)
			} else if i == 1 {
				o.Warn("all queues share one descriptor: %v", err)
			}
		}
		cpu := -1
		if len(cpus) > 0 {
			cpu = cpus[i%len(cpus)]
		}
		queues[i] = s.dev(qfd, fs.Queue(i), cpu, from)
	}
	for _, q := range queues {
		go q.loop()
	}
	return s
}

func newServer(fs Filesystem, o Options) *Server {
	s := &Server{fs: fs, opt: o}
	if !o.NoPoll {
		s.load = newLoad(runtime.NumCPU())
	}
	s.slows = newSlowRequests(fs, &s.done)
	return s
}

// dev makes a queue that reads from fd; the caller starts its loop. The queue may poll if cpu is
// not -1. Its thread is then bound to cpu, since two polling threads would soon share a CPU
// otherwise.
func (s *Server) dev(fd int, fq Queue, cpu int, from *source) *devQueue {
	q := &devQueue{s: s, sleep: fd, q: fq, cpu: cpu}
	s.counters = append(s.counters, &q.counters)
	s.done.Add(1)
	if cpu < 0 || s.load == nil {
		return q
	}
	c, err := cloneOf(fd, unix.O_NONBLOCK)
	if err != nil {
		s.opt.Warn("a queue sleeps whenever there is no request: %v", err)
		return q
	}
	q.look = c
	s.fds = append(s.fds, c)
	s.load.add(&q.poll, from)
	return q
}

// Wait returns when the connection has ended and no request is in flight. It then closes the
// descriptors that Dev opened.
func (s *Server) Wait() {
	s.done.Wait()
	for _, fd := range s.fds {
		unix.Close(fd)
	}
	s.load.close()
}

// cloneOf opens another descriptor of the connection conn, with additional open(2) flags.
func cloneOf(conn, flags int) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return -1, fmt.Errorf("opening /dev/fuse again: %w", err)
	}
	if err := clone(fd, conn); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("cloning the connection: %w", err)
	}
	return fd, nil
}

// open allocates the queue's memory, such that the data of a WRITE starts on a page.
func (q *devQueue) open() (err error) {
	const head = inHeaderSize + writeInSize
	if q.mem, err = mapMemory(pageSize + MaxIO); err != nil {
		return fmt.Errorf("memory of a request: %w", err)
	}
	q.buf = q.mem[pageSize-head:][:readSize]
	q.ans.room = q.buf[head:]
	return nil
}

// loop reads and serves requests until the connection ends. It is the body of the queue's thread.
func (q *devQueue) loop() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	defer q.s.done.Done()
	if q.poll.load != nil && !pin(q.cpu) {
		q.poll.load = nil
	}
	if err := q.open(); err != nil {
		q.s.fail(err)
		return
	}
	defer unmapMemory(q.mem)
	for {
		q.fd = q.sleep
		if q.poll.awake() {
			q.fd = q.look
		}
		n, e := read(q.fd, q.buf)
		switch {
		case e == 0 && n == 0:
			q.s.ended()
			return
		case e == 0:
			q.serve(q.buf[:n])
		case e == unix.EAGAIN:
			q.poll.idle()
		case e == unix.EINTR, e == unix.ENOENT: // the request was interrupted before it was read
		case e == unix.ENODEV, e == unix.ECONNABORTED: // unmounted, aborted
			q.s.ended()
			return
		default:
			q.s.fail(fmt.Errorf("reading requests: %w", e))
			return
		}
	}
}

// serve serves one request and sends the answer.
func (q *devQueue) serve(b []byte) {
	h := as[InHeader](b)
	if h == nil || int(h.Len) != len(b) || int(h.TotalExtlen)*8 > len(b)-inHeaderSize {
		q.s.opt.Warn("malformed FUSE request: %d bytes read, expected a header and the length that it gives; answered with EIO if it has an ID", len(b))
		if h != nil && h.Unique != 0 { // the caller waits for an answer
			q.ans.fail(h.Unique)
			q.send()
		}
		return
	}
	arg, rest := splitArg(h, b[inHeaderSize:len(b)-int(h.TotalExtlen)*8])
	q.call = q.begin(h, arg, rest, q.s.opt.Trace)
	q.poll.came(q.call.since)
	defer q.recover(h.Unique)
	switch serve(q.q, h, arg, rest, &q.ans) {
	case slow:
		q.s.slow(q.fd, b, q.call.take())
	case answered:
		q.send()
	case silent:
		q.call.end(0, 0)
	}
}

// send writes the answer and ends the call.
func (q *devQueue) send() {
	a := &q.ans
	q.iov = [2]unix.Iovec{iovec(bytesOf(&a.OutHeader)), iovec(a.body)}
	e := writev(q.fd, q.iov[:], int(a.Len))
	q.call.end(a.Error, moved(q.call.opcode, a.Error, len(a.body), a.body))
	if e != 0 && e != unix.ENOENT && e != unix.ENODEV { // ENOENT: the caller was interrupted
		q.s.opt.Warn("answering a request: %v", e)
	}
}

// ended tells the filesystem that the connection has ended, once.
func (s *Server) ended() { s.end.Do(s.fs.Ended) }

// fail turns the answer into EIO.
func (a *answer) fail(unique uint64) {
	a.OutHeader = OutHeader{Len: outHeaderSize, Error: -int32(unix.EIO), Unique: unique}
	a.body = nil
}

// fail reports an error that a queue cannot recover from, and aborts the connection.
func (s *Server) fail(err error) {
	s.opt.Warn("%v: aborting the connection", err)
	go s.opt.Abort()
}

// recover answers a request that panicked with EIO, provided that Filesystem.Panicked returns.
func (q *devQueue) recover(unique uint64) {
	if v := recover(); v != nil {
		q.s.fs.Panicked(v)
		q.ans.fail(unique)
		q.send()
	}
}

// slow hands a request to a goroutine, which answers it on fd.
func (s *Server) slow(fd int, b []byte, k call) {
	h := *as[InHeader](b)
	s.slows.start(func(out []byte) {
		if len(out) == 0 && h.Opcode != opInterrupt { // the caller waits for an answer
			out = bytesOf(&OutHeader{Len: outHeaderSize, Error: -int32(unix.EIO), Unique: h.Unique})
		}
		if len(out) > 0 {
			if _, e := unix.Write(fd, out); e != nil && e != unix.ENOENT && e != unix.ENODEV {
				s.opt.Warn("answering a request: %v", e)
			}
		}
		k.endSlow(out)
	}, b)
}
