package transport

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From include/uapi/linux/io_uring.h.
const (
	setupCQSize       = 1 << 3
	setupSQE128       = 1 << 10
	setupSingleIssuer = 1 << 12
	setupDeferTaskrun = 1 << 13
	setupNoMmap       = 1 << 14
	setupNoSQArray    = 1 << 16

	enterGetevents = 1 << 0

	opRingRead     = 22
	opRingUringCmd = 46
)

// sqe is struct io_uring_sqe of 128 bytes, as far as it is used.
type sqe struct {
	opcode   uint8
	_        uint8  // flags
	_        uint16 // ioprio
	fd       int32
	off      uint64 // of a command: its number
	addr     uint64
	len      uint32
	_        uint32 // rw_flags
	userData uint64
	_        uint16 // buf_index
	_        uint16 // personality
	_        uint32 // file_index
	cmd      [80]byte
}

// cqe is struct io_uring_cqe.
type cqe struct {
	userData uint64
	res      int32
	flags    uint32
}

// ringParams is struct io_uring_params.
type ringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	resv                                                                   [3]uint32
	sqOff                                                                  struct {
		head, tail, ringMask, ringEntries, flags, dropped, array, resv1 uint32
		userAddr                                                        uint64
	}
	cqOff struct {
		head, tail, ringMask, ringEntries, overflow, cqes, flags, resv1 uint32
		userAddr                                                        uint64
	}
}

var (
	_ = [1]int{}[unsafe.Sizeof(sqe{})-128]
	_ = [1]int{}[unsafe.Sizeof(cqe{})-16]
	_ = [1]int{}[unsafe.Sizeof(ringParams{})-120]
)

// ringEntries is the size of a ring's submission queue: its entries fill a page, as the kernel
// wants the memory that is given to it.
const ringEntries = 32

// ringCompletions is the size of a ring's completion queue: one for each place and the event's, so
// it never overflows.
const ringCompletions = 128

var _ = [ringCompletions - uringDepth - 1]int{}

// ring is an io_uring instance, used by the thread that made it alone: that is what
// SINGLE_ISSUER and DEFER_TASKRUN mean, with which completions are worked on only when that
// thread waits for them.
type ring struct {
	fd             int
	mem            []byte // the queues, then the submission entries
	sqes           *[ringEntries]sqe
	cqes           []cqe
	sqTail, cqHead *atomic.Uint32
	sqHead, cqTail *atomic.Uint32
	tail           uint32 // of what is filled in and not yet submitted
	told           uint32 // how far enter has told the kernel
}

// newRing makes a ring. It must be used by the calling thread.
func newRing() (*ring, error) {
	mem, err := unix.Mmap(-1, 0, 2*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("memory of a ring: %w", err)
	}
	p := ringParams{flags: setupCQSize | setupSQE128 | setupSingleIssuer | setupDeferTaskrun | setupNoMmap | setupNoSQArray, cqEntries: ringCompletions}
	p.cqOff.userAddr = uint64(uintptr(unsafe.Pointer(&mem[0])))
	p.sqOff.userAddr = uint64(uintptr(unsafe.Pointer(&mem[pageSize])))
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, ringEntries, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		_ = unix.Munmap(mem)
		return nil, fmt.Errorf("io_uring_setup: %w", e)
	}
	unix.CloseOnExec(int(fd))
	at := func(off uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&mem[off])) }
	r := &ring{
		fd: int(fd), mem: mem, sqes: (*[ringEntries]sqe)(unsafe.Pointer(&mem[pageSize])),
		cqes:   unsafe.Slice((*cqe)(unsafe.Pointer(&mem[p.cqOff.cqes])), p.cqEntries),
		sqHead: at(p.sqOff.head), sqTail: at(p.sqOff.tail), cqHead: at(p.cqOff.head), cqTail: at(p.cqOff.tail),
	}
	return r, nil
}

func (r *ring) close() {
	_ = unix.Close(r.fd)
	_ = unix.Munmap(r.mem)
}

// next is a submission entry to fill in, zeroed; nil if there is none until enter.
func (r *ring) next() *sqe {
	if r.tail-r.sqHead.Load() == ringEntries {
		return nil
	}
	s := &r.sqes[r.tail%ringEntries]
	r.tail++
	*s = sqe{}
	return s
}

// enter submits what was filled in and waits for n completions at least.
func (r *ring) enter(n uintptr) unix.Errno {
	r.sqTail.Store(r.tail)
	submit := r.tail - r.told
	done, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), n, enterGetevents, 0, 0)
	if e == 0 {
		r.told += uint32(done)
	} else {
		r.told = r.sqHead.Load()
	}
	return e
}

// completion takes the next completion; ok is false if there is none.
func (r *ring) completion() (c cqe, ok bool) {
	h := r.cqHead.Load()
	if h == r.cqTail.Load() {
		return cqe{}, false
	}
	c = r.cqes[h%uint32(len(r.cqes))]
	r.cqHead.Store(h + 1)
	return c, true
}

// uringHeader is struct fuse_uring_req_header: what a request and its answer have beside the
// payload.
type uringHeader struct {
	inOut [128]byte // InHeader, OutHeader
	opIn  [128]byte // the operation's structure
	ent   struct {
		flags     uint64
		commitID  uint64
		payloadSz uint32
		padding   uint32
		reserved  uint64
	}
}

// uringCmd is struct fuse_uring_cmd_req.
type uringCmd struct {
	flags    uint64
	commitID uint64
	qid      uint16
	padding  [6]byte
}

var (
	_ = [1]int{}[unsafe.Sizeof(uringHeader{})-288]
	_ = [1]int{}[unsafe.Sizeof(uringCmd{})-24]
)

// uringEntry is one place for a request: submitted (with the kernel) -> taken (a completion
// came; its request is served) -> submitted, with the answer.
type uringEntry struct {
	hdr     *uringHeader
	payload []byte
	iov     [2]unix.Iovec // of hdr and payload, for the kernel
}

const uringHeaderRoom = 4096 // in front of each payload

// newEntries makes n places, and the memory of all of them.
func newEntries(n int) (es []*uringEntry, mem []byte, err error) {
	const each = uringHeaderRoom + MaxIO
	if mem, err = mapMemory(n * each); err != nil {
		return nil, nil, fmt.Errorf("memory of %d requests: %w", n, err)
	}
	for i := range n {
		b := mem[i*each:][:each]
		e := &uringEntry{hdr: (*uringHeader)(unsafe.Pointer(&b[0])), payload: b[uringHeaderRoom:]}
		e.iov[0] = iovec(b[:unsafe.Sizeof(uringHeader{})])
		e.iov[1] = iovec(e.payload)
		es = append(es, e)
	}
	return es, mem, nil
}

// register and commit fill in a submission entry: the first offers a place to the kernel, the
// second sends the answer in it and offers it again.
func (e *uringEntry) register(s *sqe, fd int, qid uint16, userData uint64) {
	e.command(s, 1, fd, qid, userData) // FUSE_IO_URING_CMD_REGISTER
	s.addr, s.len = uint64(uintptr(unsafe.Pointer(&e.iov[0]))), uint32(len(e.iov))
}

func (e *uringEntry) commit(s *sqe, fd int, qid uint16, userData uint64) {
	e.command(s, 2, fd, qid, userData) // FUSE_IO_URING_CMD_COMMIT_AND_FETCH
}

func (e *uringEntry) command(s *sqe, cmd uint64, fd int, qid uint16, userData uint64) {
	s.opcode, s.fd, s.off, s.userData = opRingUringCmd, int32(fd), cmd, userData
	*(*uringCmd)(unsafe.Pointer(&s.cmd)) = uringCmd{commitID: e.hdr.ent.commitID, qid: qid}
}

// awaitEvent fills in a submission entry that completes when fd, of an eventfd, was written to.
func awaitEvent(s *sqe, fd int, buf *[8]byte, userData uint64) {
	s.opcode, s.fd, s.userData = opRingRead, int32(fd), userData
	s.addr, s.len, s.off = uint64(uintptr(unsafe.Pointer(buf))), uint32(len(buf)), ^uint64(0)
}

// inHeader is the request's header.
func (h *uringHeader) inHeader() *InHeader { return (*InHeader)(unsafe.Pointer(&h.inOut)) }

// outHeader is the answer's.
func (h *uringHeader) outHeader() *OutHeader { return (*OutHeader)(unsafe.Pointer(&h.inOut)) }
