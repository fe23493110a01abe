package races

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// aligned returns n bytes of page-aligned memory, for O_DIRECT.
func aligned(n int) []byte {
	b := make([]byte, n+page)
	off := -int(uintptr(unsafe.Pointer(&b[0]))) & (page - 1)
	return b[off : off+n : off+n]
}

// load reads 8 bytes of a mapping at byte off in one access. store writes them in one access.
func load(m []byte, off int64) uint64 { return atomic.LoadUint64((*uint64)(unsafe.Pointer(&m[off]))) }

func store(m []byte, off int64, v uint64) {
	atomic.StoreUint64((*uint64)(unsafe.Pointer(&m[off])), v)
}

// aio is a context of io_setup(2). It serves one request at a time.
type aio struct{ ctx uintptr }

// iocb is struct iocb.
type iocb struct {
	_      uint64 // aio_data
	_      uint32 // aio_key
	_      uint32 // aio_rw_flags
	opcode uint16
	_      int16 // aio_reqprio
	fd     uint32
	buf    uint64
	n      uint64
	off    int64
	_      uint64 // aio_reserved2
	_      uint32 // aio_flags
	_      uint32 // aio_resfd
}

func newAIO() (asyncIO, error) {
	a := &aio{}
	if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, 8, uintptr(unsafe.Pointer(&a.ctx)), 0); e != 0 {
		return nil, fmt.Errorf("io_setup: %w", e)
	}
	return a, nil
}

func (a *aio) do(write bool, fd int, b []byte, off int64) (int, error) {
	cb := &iocb{fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&b[0]))), n: uint64(len(b)), off: off}
	if write {
		cb.opcode = 1
	}
	list := [1]*iocb{cb}
	if _, _, e := unix.Syscall(unix.SYS_IO_SUBMIT, a.ctx, 1, uintptr(unsafe.Pointer(&list))); e != 0 {
		return 0, fmt.Errorf("io_submit: %w", e)
	}
	var ev struct {
		data, obj uint64
		res, res2 int64
	}
	for {
		n, _, e := unix.Syscall6(unix.SYS_IO_GETEVENTS, a.ctx, 1, 1, uintptr(unsafe.Pointer(&ev)), 0, 0)
		if e != 0 && e != unix.EINTR {
			return 0, fmt.Errorf("io_getevents: %w", e)
		}
		if e == 0 && n == 1 {
			break
		}
	}
	if ev.res < 0 {
		return 0, unix.Errno(-ev.res)
	}
	return int(ev.res), nil
}

func (a *aio) close() { _, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, a.ctx, 0, 0) }

// uring is an io_uring instance. It serves one request at a time.
type uring struct {
	fd             int
	rings, sqes    []byte
	sqTail, cqHead *atomic.Uint32
	cqTail         *atomic.Uint32
	cqes           uint32
	array          uint32
}

func newUring() (asyncIO, error) {
	var p struct {
		sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
		resv                                                                   [3]uint32
		sq, cq                                                                 [10]uint32
	}
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", e)
	}
	unix.CloseOnExec(int(fd))
	u := &uring{fd: int(fd)}
	var err error
	if u.rings, err = unix.Mmap(u.fd, 0, int(max(p.sq[6]+4*p.sqEntries, p.cq[5]+16*p.cqEntries)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err == nil {
		u.sqes, err = unix.Mmap(u.fd, 0x10000000, int(64*p.sqEntries), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		u.close()
		return nil, fmt.Errorf("mapping an io_uring: %w", err)
	}
	at := func(off uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&u.rings[off])) }
	u.sqTail, u.cqHead, u.cqTail, u.cqes, u.array = at(p.sq[1]), at(p.cq[0]), at(p.cq[1]), p.cq[5], p.sq[6]
	return u, nil
}

func (u *uring) do(write bool, fd int, b []byte, off int64) (int, error) {
	type sqe struct {
		opcode, flags uint8
		prio          uint16
		fd            int32
		off, addr     uint64
		n, rwFlags    uint32
		rest          [32]byte
	}
	s := (*sqe)(unsafe.Pointer(&u.sqes[0]))
	*s = sqe{opcode: 22, fd: int32(fd), off: uint64(off), addr: uint64(uintptr(unsafe.Pointer(&b[0]))), n: uint32(len(b))}
	if write {
		s.opcode = 23
	}
	for i := range uint32(4) { // every index of the submission queue refers to entry 0
		*(*uint32)(unsafe.Pointer(&u.rings[u.array+4*i])) = 0
	}
	u.sqTail.Add(1)
	submit := uintptr(1)
	for u.cqHead.Load() == u.cqTail.Load() {
		n, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(u.fd), submit, 1, 1, 0, 0)
		if e != 0 && e != unix.EINTR {
			return 0, fmt.Errorf("io_uring_enter: %w", e)
		}
		if e == 0 {
			submit -= min(submit, n)
		}
	}
	head := u.cqHead.Load()
	res := *(*int32)(unsafe.Pointer(&u.rings[u.cqes+16*(head%8)+8]))
	u.cqHead.Store(head + 1)
	if res < 0 {
		return 0, unix.Errno(-res)
	}
	return int(res), nil
}

func (u *uring) close() {
	for _, m := range [][]byte{u.rings, u.sqes} {
		if m != nil {
			_ = unix.Munmap(m)
		}
	}
	_ = unix.Close(u.fd)
}
