package transport

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Constants from include/uapi/linux/io_uring.h.
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

// sqe is struct io_uring_sqe in its size of 128 bytes; unused fields have no name.
type sqe struct {
	opcode   uint8
	_        uint8  // flags
	_        uint16 // ioprio
	fd       int32
	off      uint64 // for IORING_OP_URING_CMD: the command's number
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

// ringEntries is the number of entries of a ring's submission queue. They fill a page, as the
// kernel requires of memory that the user provides.
const ringEntries = 32

// ringCompletions is the number of entries of a ring's completion queue: one for each uringEntry
// and one for the eventfd, so it never overflows.
const ringCompletions = 128

var _ = [ringCompletions - uringDepth - 1]int{}

// ring is an io_uring instance. Only the thread that made it may use it, as SINGLE_ISSUER and
// DEFER_TASKRUN require. With these flags the kernel handles completions only while that thread
// waits for them.
type ring struct {
	fd             int
	mem            []byte // the queues, then the submission entries
	sqes           *[ringEntries]sqe
	cqes           []cqe
	sqTail, cqHead *atomic.Uint32
	sqHead, cqTail *atomic.Uint32
	tail           uint32 // after the last entry that was filled in
	taken          uint32 // after the last entry that the kernel has taken
}

// newRing makes a ring for the calling thread.
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

// next returns a zeroed submission entry to fill in, or nil if all entries wait for enter.
func (r *ring) next() *sqe {
	if r.tail-r.sqHead.Load() == ringEntries {
		return nil
	}
	s := &r.sqes[r.tail%ringEntries]
	r.tail++
	*s = sqe{}
	return s
}

// enter submits the entries that were filled in, and waits for at least n completions.
func (r *ring) enter(n uintptr) unix.Errno {
	r.sqTail.Store(r.tail)
	submit := r.tail - r.taken
	done, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), n, enterGetevents, 0, 0)
	if e == 0 {
		r.taken += uint32(done)
	} else {
		r.taken = r.sqHead.Load()
	}
	return e
}

// completion takes the next completion; ok is false if there is no completion.
func (r *ring) completion() (c cqe, ok bool) {
	h := r.cqHead.Load()
	if h == r.cqTail.Load() {
		return cqe{}, false
	}
	c = r.cqes[h%uint32(len(r.cqes))]
	r.cqHead.Store(h + 1)
	return c, true
}

// uringHeader is struct fuse_uring_req_header: everything but the payload of a request or its
// answer.
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

// uringEntry is a ring entry (struct fuse_ring_ent), with room for one request. States: submitted
// (the kernel's) -> taken (a completion came; the request is served) -> submitted, with the answer.
type uringEntry struct {
	hdr     *uringHeader
	payload []byte
	iov     [2]unix.Iovec // hdr and payload, for the kernel
}

const uringHeaderRoom = 4096 // bytes before each payload

// newEntries makes n ring entries in one mapping, and returns both.
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

// register fills in a submission entry that offers the ring entry to the kernel. qid is the number
// of the queue, which is that of its CPU.
func (e *uringEntry) register(s *sqe, fd int, qid uint16, userData uint64) {
	e.command(s, 1, fd, qid, userData) // FUSE_IO_URING_CMD_REGISTER
	s.addr, s.len = uint64(uintptr(unsafe.Pointer(&e.iov[0]))), uint32(len(e.iov))
}

// commit fills in a submission entry that sends the answer in the ring entry, and offers the ring
// entry again.
func (e *uringEntry) commit(s *sqe, fd int, qid uint16, userData uint64) {
	e.command(s, 2, fd, qid, userData) // FUSE_IO_URING_CMD_COMMIT_AND_FETCH
}

func (e *uringEntry) command(s *sqe, cmd uint64, fd int, qid uint16, userData uint64) {
	s.opcode, s.fd, s.off, s.userData = opRingUringCmd, int32(fd), cmd, userData
	*(*uringCmd)(unsafe.Pointer(&s.cmd)) = uringCmd{commitID: e.hdr.ent.commitID, qid: qid}
}

// awaitEvent fills in a submission entry that completes when the eventfd fd has been written to.
func awaitEvent(s *sqe, fd int, buf *[8]byte, userData uint64) {
	s.opcode, s.fd, s.userData = opRingRead, int32(fd), userData
	s.addr, s.len, s.off = uint64(uintptr(unsafe.Pointer(buf))), uint32(len(buf)), ^uint64(0)
}

// inHeader returns the request's header.
func (h *uringHeader) inHeader() *InHeader { return (*InHeader)(unsafe.Pointer(&h.inOut)) }

// outHeader returns the place of the answer's header, which overlaps the request's.
func (h *uringHeader) outHeader() *OutHeader { return (*OutHeader)(unsafe.Pointer(&h.inOut)) }
