package direct

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/fs/lease"
	"github.com/daxfsd/daxfsd/test/harness"
)

// ring is an io_uring with one registered buffer and one request at a time.
type ring struct {
	fd             int
	mem, entries   []byte
	sqTail, sqMask *uint32
	cqHead, cqTail *uint32
	array          *uint32
	cqes           uint32
	cqMask         *uint32
	buffer         uintptr
	length         uint32
}

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	resv                                                 [3]uint32
	sq                                                   struct{ head, tail, mask, entries, flags, dropped, array, resv1 uint32 }
	sqAddr                                               uint64
	cq                                                   struct{ head, tail, mask, entries, overflow, cqes, flags, resv1 uint32 }
	cqAddr                                               uint64
}

// uringEntry is struct io_uring_sqe.
type uringEntry struct {
	op, flags    uint8
	prio         uint16
	fd           int32
	off, addr    uint64
	length, opts uint32
	user         uint64
	buffer       uint16
	_            [22]byte
}

const (
	uringReadFixed       = 4 // IORING_OP_READ_FIXED
	uringRegisterBuffers = 0 // IORING_REGISTER_BUFFERS
	uringGetEvents       = 1 // IORING_ENTER_GETEVENTS
	uringEntriesOffset   = 0x10000000
)

// newRing returns a ring that has registered b.
func newRing(t *testing.T, b []byte) *ring {
	t.Helper()
	var p uringParams
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&p)), 0)
	if e != 0 {
		t.Fatalf("io_uring_setup: %v", e)
	}
	r := &ring{fd: int(fd), buffer: uintptr(unsafe.Pointer(&b[0])), length: uint32(len(b))}
	t.Cleanup(r.close)
	var err error
	if r.mem, err = unix.Mmap(r.fd, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatalf("mapping the rings: %v", err)
	}
	if r.entries, err = unix.Mmap(r.fd, uringEntriesOffset, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatalf("mapping the entries: %v", err)
	}
	at := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.mem[off])) }
	r.sqTail, r.sqMask, r.array = at(p.sq.tail), at(p.sq.mask), at(p.sq.array)
	r.cqHead, r.cqTail, r.cqMask, r.cqes = at(p.cq.head), at(p.cq.tail), at(p.cq.mask), p.cq.cqes
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	if _, _, e := unix.Syscall6(unix.SYS_IO_URING_REGISTER, fd, uringRegisterBuffers, uintptr(unsafe.Pointer(&iov)), 1, 0, 0); e != 0 {
		t.Fatalf("registering the mapping as a buffer: %v", e)
	}
	return r
}

func (r *ring) close() {
	if r.fd >= 0 {
		unix.Close(r.fd)
		unix.Munmap(r.mem)
		unix.Munmap(r.entries)
		r.fd = -1
	}
}

// read reads the beginning of a file into the whole registered buffer, whether or not it is still
// mapped.
func (r *ring) read(f *os.File) error {
	e := (*uringEntry)(unsafe.Pointer(&r.entries[0]))
	*e = uringEntry{op: uringReadFixed, fd: int32(f.Fd()), addr: uint64(r.buffer), length: r.length}
	*r.array = 0
	atomic.AddUint32(r.sqTail, 1)
	if n, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, 1, uringGetEvents, 0, 0); e != 0 || n != 1 {
		return fmt.Errorf("io_uring_enter: %d, %w", n, e)
	}
	head := atomic.LoadUint32(r.cqHead)
	if head == atomic.LoadUint32(r.cqTail) {
		return fmt.Errorf("io_uring: no completion")
	}
	res := *(*int32)(unsafe.Pointer(&r.mem[r.cqes+16*(head&*r.cqMask)+8]))
	atomic.StoreUint32(r.cqHead, head+1)
	if res != int32(r.length) {
		return fmt.Errorf("io_uring: read %d bytes of %d", res, r.length)
	}
	return nil
}

// TestRegisteredBuffer maps a file, registers the memory with io_uring, unmaps it and deletes the
// file. The kernel can then still write there. While the mapping is pinned, it never writes to
// another file's blocks, however long it takes. Otherwise the blocks are kept for lease.Quarantine.
func TestRegisteredBuffer(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "daxfsd-direct-") // a disk's files cannot be registered to be written to
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	data, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	if err := data.Truncate(heldBytes); err != nil { // zeros
		t.Fatal(err)
	}
	for _, pin := range []bool{true, false} {
		t.Run(fmt.Sprintf("pin=%v", pin), func(t *testing.T) {
			m := harness.NewOn(t, fmt.Sprintf("%s/%v", dir, pin), 64<<20, limit)
			create(t, m.Path("f"), 1, heldBytes)
			d := open(t, m.Path("f"), os.O_RDWR)
			mp, err := d.Map(0, heldBytes, direct.MapOptions{Write: true})
			if err != nil {
				t.Fatal(err)
			}
			d.Close()
			r := newRing(t, mp.Bytes())
			if err := r.read(data); err != nil || mp.Bytes()[0] != 0 {
				t.Fatalf("reading into the mapping: %v", err)
			}
			if pin {
				if err := mp.Pin(); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Remove(m.Path("f")); err != nil {
				t.Fatal(err)
			}
			check := fill(t, m, "others") // while the mapping is there
			if err := mp.Close(); err != nil {
				t.Fatal(err)
			}
			ended := time.Now()
			if pin {
				check := fill(t, m, "more")
				time.Sleep(5 * lease.Quarantine)
				if err := r.read(data); err != nil {
					t.Fatal(err)
				}
				check()
				if !leased(t, m) {
					t.Error("the lease has ended, although the mapping is pinned")
				}
				mp.Unpin()
			} else {
				f, err := os.Create(m.Path("more"))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				// A write that needs the blocks waits until they are given up.
				_, _ = f.Write(make([]byte, 4096)) // what is left of the space, if anything
				if _, err := f.WriteAt(make([]byte, heldBytes/2), 4096); err != nil {
					t.Errorf("the space of a lease that has ended does not come back: %v", err)
				}
				if took := time.Since(ended); took < lease.Quarantine {
					t.Errorf("the blocks were used again after %v, they are to be kept for %v", took, lease.Quarantine)
				}
			}
			r.close()
			check()
			for end := time.Now().Add(10 * time.Second); leased(t, m); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the lease is left")
				}
			}
		})
	}
}
