package transport

import (
	"bytes"
	"encoding/binary"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/internal/invariants"
)

func TestCountCPUs(t *testing.T) {
	for list, want := range map[string]int{
		"0": 1, "0-1": 2, "0-127": 128,
		"": 0, "3": 0, "1-3": 0, "0,2-5": 0, "0-1,4": 0, "0-": 0, "0-0": 0, "0--1": 0, "0-99999999": 0,
	} {
		if n, err := countCPUs(list); n != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %d CPUs, %v", list, n, err)
		}
	}
}

func TestUringDepth(t *testing.T) {
	for n, want := range map[int]int{1: 64, 2: 64, 16: 64, 17: 60, 64: 16, 128: 8, 129: 8, uringMaxCPUs: 8} {
		if got := uringDepthFor(n); got != want {
			t.Errorf("%d CPUs: %d requests each, want %d", n, got, want)
		}
	}
}

const poisoned = 0xbd

// echo is a filesystem with one file, whose content is data.
type echo struct {
	wrong  func(format string, a ...any)
	refuse atomic.Bool // make every WRITE and CREATE a slow request
	ended  atomic.Int32

	mu     sync.Mutex
	data   []byte
	forgot map[uint64]uint64
	panics []any
}

type echoQueue struct{ *echo }

func (f *echo) Queue(int) Queue { return echoQueue{f} }

func (f *echo) Ended() { f.ended.Add(1) }

func (f *echo) Panicked(v any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.panics = append(f.panics, v)
}

// SlowPath answers with the request's length, as a WRITE.
func (f *echo) SlowPath(in, out []byte, _ *Slot) int {
	h := as[InHeader](in)
	if h.Opcode == 1000 {
		return 0
	}
	o := OutHeader{Len: outHeaderSize + 8, Unique: h.Unique}
	copy(out, bytesOf(&o))
	w := WriteOut{Size: uint32(len(in))}
	copy(out[outHeaderSize:], bytesOf(&w))
	return int(o.Len)
}

// Read returns EIO where a byte is poisoned, after it has begun to fill out.
func (q echoQueue) Read(h *InHeader, in *ReadIn, out []byte) (int, syscall.Errno) {
	switch h.NodeID {
	case 2:
	case 13:
		panic("thirteen")
	default:
		return 0, syscall.EISDIR
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	n := copy(out, q.data[min(in.Offset, uint64(len(q.data))):])
	if bytes.IndexByte(out[:n], poisoned) >= 0 {
		return 0, syscall.EIO
	}
	return n, 0
}

func (q echoQueue) Write(_ *InHeader, in *WriteIn, data []byte) (int, syscall.Errno) {
	if q.refuse.Load() {
		return 0, SlowPath
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return copy(q.data[in.Offset:], data), 0
}

func (q echoQueue) Getattr(h *InHeader, _ *GetattrIn, out *AttrOut) syscall.Errno {
	out.Attr.Ino = h.NodeID
	return 0
}

func (q echoQueue) Lookup(_ *InHeader, name string, out *EntryOut) syscall.Errno {
	if name == "" || strings.ContainsRune(name, 0) {
		return syscall.EINVAL
	}
	out.NodeID = uint64(len(name))
	return 0
}

func (q echoQueue) Release(*InHeader, *ReleaseIn) syscall.Errno { return 0 }
func (q echoQueue) Fsync(*InHeader, *FsyncIn) syscall.Errno     { return syscall.EIO }

func (q echoQueue) Setattr(h *InHeader, in *SetattrIn, out *AttrOut) syscall.Errno {
	out.Attr.Size = in.Size
	return 0
}

func (q echoQueue) Open(_ *InHeader, in *OpenIn, out *OpenOut) syscall.Errno {
	out.OpenFlags = in.Flags
	return 0
}

func (q echoQueue) Create(h *InHeader, in *CreateIn, name string, out *CreateOut) syscall.Errno {
	if q.refuse.Load() {
		return SlowPath
	}
	out.Open.OpenFlags = in.Flags
	return q.Lookup(h, name, &out.Entry)
}

func (q echoQueue) Mkdir(h *InHeader, _ *MkdirIn, name string, out *EntryOut) syscall.Errno {
	return q.Lookup(h, name, out)
}

func (q echoQueue) Link(h *InHeader, _ *LinkIn, name string, out *EntryOut) syscall.Errno {
	return q.Lookup(h, name, out)
}

func (q echoQueue) Symlink(h *InHeader, name, target string, out *EntryOut) syscall.Errno {
	out.Generation = uint64(len(target))
	return q.Lookup(h, name, out)
}

// Unlink, Rmdir and Rename answer with the lengths of the names.
func (q echoQueue) Unlink(_ *InHeader, name string) syscall.Errno { return syscall.Errno(len(name)) }
func (q echoQueue) Rmdir(_ *InHeader, name string) syscall.Errno  { return syscall.Errno(len(name)) }

func (q echoQueue) Rename(_ *InHeader, in *Rename2In, from, to string) syscall.Errno {
	return syscall.Errno(100*int(in.Newdir) + 10*len(from) + len(to) + int(in.Flags))
}

func (q echoQueue) Readlink(h *InHeader, out []byte) (int, syscall.Errno) {
	return copy(out, q.data), 0
}

func (q echoQueue) Readdir(_ *InHeader, in *ReadIn, plus bool, out []byte) (int, syscall.Errno) {
	if plus {
		out = out[:len(out)/2]
	}
	return copy(out, q.data[in.Offset:]), 0
}

func (q echoQueue) Forget(nodeID, n uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.forgot == nil {
		q.forgot = map[uint64]uint64{}
	}
	q.forgot[nodeID] += n
}

// request returns a request as the kernel sends it.
func request(opcode uint32, node uint64, body ...any) []byte {
	var b bytes.Buffer
	for _, v := range body {
		if s, ok := v.(string); ok {
			v = []byte(s)
		}
		if err := binary.Write(&b, binary.NativeEndian, v); err != nil {
			panic(err)
		}
	}
	h := InHeader{Len: uint32(inHeaderSize + b.Len()), Opcode: opcode, Unique: 77, NodeID: node}
	return append(bytes.Clone(bytesOf(&h)), b.Bytes()...)
}

// kernel is the other end of a connection: a socket that preserves message boundaries, as /dev/fuse
// does.
type kernel struct {
	t  *testing.T
	fd int
	s  *Server
}

func connect(t *testing.T, f *echo, queues int) *kernel {
	t.Helper()
	return connectWith(t, f, queues, Options{Warn: t.Logf})
}

func connectWith(t *testing.T, f *echo, queues int, o Options) *kernel {
	t.Helper()
	f.wrong = t.Errorf
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range pair {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20); err != nil && os.Geteuid() == 0 {
			t.Fatal(err)
		}
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 10})
	}
	_ = unix.SetsockoptTimeval(pair[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	k := &kernel{t: t, fd: pair[0]}
	k.s = Dev(pair[1], f, queues, o)
	t.Cleanup(func() {
		unix.Shutdown(k.fd, unix.SHUT_RDWR)
		ended := make(chan struct{})
		go func() { k.s.Wait(); close(ended) }()
		select {
		case <-ended:
			if n := f.ended.Load(); n != 1 {
				t.Errorf("Ended was called %d times", n)
			}
			unix.Close(pair[0])
			unix.Close(pair[1])
		case <-time.After(10 * time.Second):
			t.Error("the queues do not end with the connection")
		}
	})
	return k
}

// ask sends a request and returns the error and the body of its answer.
func (k *kernel) ask(req []byte) (syscall.Errno, []byte) {
	k.t.Helper()
	if err := unix.Send(k.fd, req, 0); err != nil {
		k.t.Fatal(err)
	}
	b := make([]byte, 2<<20)
	n, err := unix.Read(k.fd, b)
	for err == unix.EINTR {
		n, err = unix.Read(k.fd, b)
	}
	if err != nil || n < outHeaderSize {
		k.t.Fatalf("the answer: %d bytes, %v", n, err)
	}
	h := as[OutHeader](b)
	if int(h.Len) != n || h.Unique != 77 || h.Error > 0 {
		k.t.Fatalf("the answer's header is %+v, it has %d bytes", *h, n)
	}
	return syscall.Errno(-h.Error), b[outHeaderSize:n]
}

// TestAnswers checks the answers to the requests of a connection.
func TestAnswers(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 10000)
	f := &echo{data: bytes.Clone(data)}
	k := connect(t, f, 2)
	for _, c := range []struct {
		name string
		req  []byte
		e    syscall.Errno
		want []byte
	}{
		{"read", request(opRead, 2, ReadIn{Offset: 5, Size: 100}), 0, data[5:105]},
		{"read all", request(opRead, 2, ReadIn{Size: MaxIO}), 0, data},
		{"read nothing", request(opRead, 2, ReadIn{Offset: 1 << 60, Size: 100}), 0, []byte{}},
		{"read a directory", request(opRead, 1, ReadIn{Size: 100}), syscall.EISDIR, nil},
		{"read too much", request(opRead, 2, ReadIn{Size: MaxIO + 1}), syscall.EIO, nil},
		{"read, cut off", request(opRead, 2, uint64(0), uint64(0), uint32(1)), syscall.EIO, nil},
		{"panic", request(opRead, 13, ReadIn{Size: 100}), syscall.EIO, nil},
		{"write", request(opWrite, 2, WriteIn{Offset: 1, Size: 3}, "XYZ"), 0, []byte{3, 0, 0, 0, 0, 0, 0, 0}},
		{"write less than said", request(opWrite, 2, WriteIn{Offset: 1, Size: 4}, "XYZ"), syscall.EIO, nil},
		{"write more than said", request(opWrite, 2, WriteIn{Offset: 1, Size: 2}, "XYZ"), syscall.EIO, nil},
		{"read back", request(opRead, 2, ReadIn{Size: 5}), 0, []byte("0XYZ4")},
		{"lookup no end", request(opLookup, 1, "abc"), syscall.EIO, nil},
		{"lookup nothing", request(opLookup, 1), syscall.EIO, nil},
		{"lookup an empty name", request(opLookup, 1, "\x00"), syscall.EINVAL, nil},
		{"fsync", request(opFsync, 2, FsyncIn{}), syscall.EIO, nil},
		{"release", request(opRelease, 2, ReleaseIn{}), 0, []byte{}},
		{"open", request(opOpen, 2, OpenIn{Flags: 5}), 0, bytesOf(&OpenOut{OpenFlags: 5})},
		{"opendir", request(opOpendir, 1, OpenIn{Flags: 5}), 0, bytesOf(&OpenOut{})},
		{"releasedir", request(opReleasedir, 1, ReleaseIn{}), 0, []byte{}},
		{"create", request(opCreate, 1, CreateIn{Flags: 6}, "ab\x00"), 0, bytesOf(&CreateOut{EntryOut{NodeID: 2}, OpenOut{OpenFlags: 6}})},
		{"create, cut off", request(opCreate, 1, CreateIn{Flags: 6}, "ab"), syscall.EIO, nil},
		{"create without a name", request(opCreate, 1, uint64(1)), syscall.EIO, nil},
		{"mkdir", request(opMkdir, 1, MkdirIn{}, "abc\x00"), 0, bytesOf(&EntryOut{NodeID: 3})},
		{"link", request(opLink, 1, LinkIn{2}, "abcd\x00"), 0, bytesOf(&EntryOut{NodeID: 4})},
		{"symlink", request(opSymlink, 1, "a\x00target\x00"), 0, bytesOf(&EntryOut{NodeID: 1, Generation: 6})},
		{"symlink to nowhere", request(opSymlink, 1, "a\x00target"), syscall.EIO, nil},
		{"unlink", request(opUnlink, 1, "ab\x00"), 2, nil},
		{"rmdir", request(opRmdir, 1, "abc\x00"), 3, nil},
		{"rename", request(opRename, 1, LinkIn{2}, "abc\x00d\x00"), 231, nil},
		{"rename2", request(opRename2, 1, Rename2In{Newdir: 2, Flags: 4}, "abc\x00d\x00"), 235, nil},
		{"rename of one name", request(opRename, 1, LinkIn{2}, "abc\x00"), syscall.EIO, nil},
		{"rename to what is cut off", request(opRename2, 1, Rename2In{}, "abc\x00d"), syscall.EIO, nil},
		{"readlink", request(opReadlink, 1), 0, []byte("0XYZ456789abcdef" + string(data[16:]))},
		{"readdir", request(opReaddir, 1, ReadIn{Offset: 16, Size: 16}), 0, data[:16]},
		{"readdirplus", request(opReaddirplus, 1, ReadIn{Offset: 16, Size: 16}), 0, data[:8]},
		{"readdir, more than there is room for", request(opReaddir, 1, ReadIn{Offset: 16, Size: 1 << 31}), 0, data[16:]},
		{"slow, and no answer", request(1000, 2), syscall.EIO, nil},
		{"more than it says", append(request(opRelease, 2, ReleaseIn{}), 0), syscall.EIO, nil},
		{"slow", request(999, 2, "something"), 0, []byte{inHeaderSize + 9, 0, 0, 0, 0, 0, 0, 0}},
	} {
		if e, got := k.ask(c.req); e != c.e || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %v and %d bytes %.20q, expected %v and %d bytes", c.name, e, len(got), got, c.e, len(c.want))
		}
	}
	if e, b := k.ask(request(opGetattr, 2, GetattrIn{})); e != 0 || as[AttrOut](b) == nil || as[AttrOut](b).Attr.Ino != 2 || len(b) != 104 {
		t.Errorf("getattr: %v, %d bytes", e, len(b))
	}
	if e, b := k.ask(request(opSetattr, 2, SetattrIn{Size: 9})); e != 0 || as[AttrOut](b) == nil || as[AttrOut](b).Attr.Size != 9 {
		t.Errorf("setattr: %v, %d bytes", e, len(b))
	}
	if e, b := k.ask(request(opLookup, 1, "abc\x00")); e != 0 || len(b) != 128 || as[EntryOut](b).NodeID != 3 {
		t.Errorf("lookup: %v, %d bytes", e, len(b))
	}
	f.mu.Lock()
	if len(f.panics) != 1 {
		t.Errorf("Panicked was called %d times", len(f.panics))
	}
	f.mu.Unlock()
	// Requests without an answer, and malformed ones; then a request whose answer the test awaits.
	f.refuse.Store(true)
	for _, b := range [][]byte{
		request(opForget, 5, ForgetIn{3}),
		request(opBatchForget, 0, BatchForgetIn{Count: 2}, ForgetOne{5, 1}, ForgetOne{6, 1}),
		request(opBatchForget, 0, BatchForgetIn{Count: 1 << 31}, ForgetOne{6, 1}, uint64(1)), // Count is larger than the list
		request(opForget, 5), {1, 2, 3}, make([]byte, inHeaderSize),
	} {
		if err := unix.Send(k.fd, b, 0); err != nil {
			t.Fatal(err)
		}
	}
	req := request(opWrite, 2, WriteIn{Size: MaxIO}, string(make([]byte, MaxIO)))
	if e, b := k.ask(req); e != 0 || int(as[WriteOut](b).Size) != len(req) {
		t.Errorf("a write that a queue refuses: %v", e)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		f.mu.Lock()
		five, six := f.forgot[5], f.forgot[6]
		f.mu.Unlock()
		if five == 4 && six == 2 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("forgot %d and %d, expected 4 and 2", five, six)
		}
	}
}

// TestReadFails checks that unreadable memory is EIO, and that the next READ is served.
func TestReadFails(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), MaxIO/16)
	want := bytes.Clone(data)
	data[5000] = poisoned
	k := connect(t, &echo{data: data}, 1)
	for range 2 {
		if e, got := k.ask(request(opRead, 2, ReadIn{Size: 5000})); e != 0 || !bytes.Equal(got, want[:5000]) {
			t.Errorf("read: %v and %d bytes", e, len(got))
		}
		if e, got := k.ask(request(opRead, 2, ReadIn{Size: MaxIO})); e != syscall.EIO || len(got) != 0 {
			t.Errorf("read poison: %v and %d bytes", e, len(got))
		}
		if e, got := k.ask(request(opRead, 2, ReadIn{Offset: 5001, Size: MaxIO})); e != 0 || !bytes.Equal(got, want[5001:]) {
			t.Errorf("read beyond the end: %v and %d bytes", e, len(got))
		}
		if e, got := k.ask(request(opRead, 2, ReadIn{Size: MaxIO + 1})); e != syscall.EIO || len(got) != 0 {
			t.Errorf("read more than was negotiated: %v and %d bytes", e, len(got))
		}
	}
}

// TestExtensions checks that extensions behind a request's body are not taken for a part of the
// body.
func TestExtensions(t *testing.T) {
	f := &echo{data: make([]byte, 100)}
	k := connect(t, f, 1)
	req := request(opLookup, 1, "abc\x00", uint64(1), uint64(2))
	as[InHeader](req).TotalExtlen = 2
	if e, b := k.ask(req); e != 0 || as[EntryOut](b).NodeID != 3 {
		t.Errorf("lookup with an extension: %v", e)
	}
	as[InHeader](req).TotalExtlen = 100 // more than there are: malformed
	if e, _ := k.ask(req); e != syscall.EIO {
		t.Errorf("extensions that are not there: %v", e)
	}
	if e, _ := k.ask(request(opRelease, 2, ReleaseIn{})); e != 0 {
		t.Error(e)
	}
}

// TestServeAllocatesNothing checks that parsing and answering do not allocate.
func TestServeAllocatesNothing(t *testing.T) {
	if invariants.Enabled {
		t.Skip("checks allocate")
	}
	f := &echo{data: make([]byte, 1<<20)}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	q := &devQueue{s: &Server{fs: f}, fd: int(null.Fd()), q: f.Queue(0)}
	q.ans.room = make([]byte, MaxIO)
	for name, req := range map[string][]byte{
		"read":    request(opRead, 2, ReadIn{Size: 4096}),
		"write":   request(opWrite, 2, WriteIn{Size: 4096}, string(make([]byte, 4096))),
		"getattr": request(opGetattr, 2, GetattrIn{}),
		"lookup":  request(opLookup, 1, "abc\x00"),
		"release": request(opRelease, 2, ReleaseIn{}),
		"create":  request(opCreate, 1, CreateIn{}, "abc\x00"),
		"unlink":  request(opUnlink, 1, "abc\x00"),
		"rename":  request(opRename, 1, LinkIn{2}, "abc\x00d\x00"),
	} {
		if n := testing.AllocsPerRun(1000, func() { q.serve(req) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// FuzzServe checks that no request, however malformed, gets more than an error.
func FuzzServe(f *testing.F) {
	for _, b := range [][]byte{
		request(opRead, 2, ReadIn{Size: 4096}), request(opWrite, 2, WriteIn{Size: 3}, "abc"),
		request(opLookup, 1, "abc\x00"), request(opBatchForget, 0, BatchForgetIn{Count: 2}, ForgetOne{5, 1}, ForgetOne{6, 1}),
		request(opSetattr, 2, SetattrIn{}), request(opOpen, 2, OpenIn{}), request(opCreate, 1, CreateIn{}, "abc\x00"), request(opSymlink, 1, "a\x00b\x00"),
		request(opRename, 1, LinkIn{1}, "a\x00b\x00"), request(opRename2, 1, Rename2In{}, "a\x00b\x00"), request(opUnlink, 1, "abc\x00"),
		request(opReaddir, 1, ReadIn{Size: 100}), request(opReadlink, 1), request(opMkdir, 1, MkdirIn{}, "abc\x00"), request(opLink, 1, LinkIn{1}, "abc\x00"),
		request(opGetattr, 2, GetattrIn{}), request(opForget, 2, ForgetIn{1}), request(opRelease, 2, ReleaseIn{}), request(opFsync, 2, FsyncIn{}),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e := &echo{data: make([]byte, 4096), wrong: t.Errorf}
		null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		if h := as[InHeader](b); h != nil {
			h.Len = uint32(len(b))
			if h.NodeID == 13 || (h.Opcode == opReaddir || h.Opcode == opReaddirplus) && len(b) >= inHeaderSize+readInSize && as[ReadIn](b[inHeaderSize:]) != nil && as[ReadIn](b[inHeaderSize:]).Offset > 4096 ||
				len(b) >= inHeaderSize+writeInSize && h.Opcode == opWrite && as[WriteIn](b[inHeaderSize:]) != nil && as[WriteIn](b[inHeaderSize:]).Offset > 4096 {
				return // the filesystem's concern
			}
		}
		s := newServer(e, Options{Warn: func(string, ...any) {}})
		q := &devQueue{s: s, fd: int(null.Fd()), q: e.Queue(0)}
		q.ans.room = make([]byte, 8192)
		q.serve(b)
		s.done.Wait()
		if len(e.panics) > 0 {
			t.Errorf("panic: %v", e.panics[0])
		}
	})
}
