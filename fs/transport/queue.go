package transport

import "syscall"

// Cold is what a Queue answers if a request has to wait, or is not its to serve.
const Cold = syscall.Errno(1 << 20)

// Filesystem is what a connection serves. It is safe for concurrent use.
type Filesystem interface {
	// Queue makes the entry of the n-th thread.
	Queue(n int) Queue
	// Cold answers a request as it came; out takes the answer, of which the length is
	// returned, 0 for none. It may block and is called by any goroutine.
	Cold(in, out []byte) int
	// Panicked is told of a panic while a request was served, of which locks may be held.
	Panicked(v any)
}

// Queue serves the requests that must be fast. No call may keep what it is given. An error of
// Cold makes the request a cold one, before anything was done that doing it again would spoil.
// It is used by one thread.
type Queue interface {
	// Read returns what answers a READ, valid until Done, which is called once for each
	// Read without an error.
	Read(h *InHeader, in *ReadIn) ([][]byte, syscall.Errno)
	Done()
	// Copy puts what Read returned together, for transports that cannot send slices. It fails
	// where the memory cannot be read.
	Copy(dst []byte) (int, error)
	// Write stores data, and returns how much of it.
	Write(h *InHeader, in *WriteIn, data []byte) (int, syscall.Errno)
	Getattr(h *InHeader, in *GetattrIn, out *AttrOut) syscall.Errno
	Lookup(h *InHeader, name string, out *EntryOut) syscall.Errno
	Release(h *InHeader, in *ReleaseIn) syscall.Errno
	Fsync(h *InHeader, in *FsyncIn) syscall.Errno
	Forget(nodeID, nlookup uint64)
}

// answer is what goes back of a request.
type answer struct {
	OutHeader
	// arg is the operation's structure.
	arg struct {
		write WriteOut
		attr  AttrOut
		entry EntryOut
	}
	body []byte   // the structure, as far as it is sent
	data [][]byte // of a READ
	read bool     // Done is due
}

// verdict is what becomes of a request.
type verdict int

const (
	answered verdict = iota // the answer is to be sent
	silent                  // there is none
	cold                    // it is for Cold
)

// serve serves one request: its header, the structure of its operation and what follows that.
// For a request whose parts arrive separately they need not lie together.
func serve(q Queue, h *InHeader, arg, rest []byte, a *answer) verdict {
	a.Unique, a.body, a.data, a.read = h.Unique, nil, nil, false
	e := syscall.EIO // of what is too short
	switch h.Opcode {
	case opRead:
		if in := as[ReadIn](arg); in != nil && in.Size <= MaxIO {
			if a.data, e = q.Read(h, in); e == 0 {
				a.read = true
			}
		}
	case opWrite:
		if in := as[WriteIn](arg); in != nil && int(in.Size) == len(rest) {
			var n int
			if n, e = q.Write(h, in, rest); e == 0 {
				a.arg.write = WriteOut{Size: uint32(n)}
				a.body = bytesOf(&a.arg.write)
			}
		}
	case opGetattr:
		if in := as[GetattrIn](arg); in != nil {
			a.arg.attr = AttrOut{}
			e = q.Getattr(h, in, &a.arg.attr)
			a.body = bytesOf(&a.arg.attr)
		}
	case opLookup:
		if n := len(rest); n > 0 && rest[n-1] == 0 {
			a.arg.entry = EntryOut{}
			e = q.Lookup(h, nameOf(rest[:n-1]), &a.arg.entry)
			a.body = bytesOf(&a.arg.entry)
		}
	case opRelease:
		if in := as[ReleaseIn](arg); in != nil {
			e = q.Release(h, in)
		}
	case opFsync:
		if in := as[FsyncIn](arg); in != nil {
			e = q.Fsync(h, in)
		}
	case opForget:
		if in := as[ForgetIn](arg); in != nil {
			q.Forget(h.NodeID, in.Nlookup)
		}
		return silent
	case opBatchForget:
		if in := as[BatchForgetIn](arg); in != nil {
			for n := in.Count; n > 0; n-- {
				one := as[ForgetOne](rest)
				if one == nil {
					break
				}
				q.Forget(one.NodeID, one.Nlookup)
				rest = rest[16:]
			}
		}
		return silent
	default:
		return cold
	}
	if e == Cold {
		return cold
	}
	a.Error = -int32(e)
	if e != 0 {
		a.body = nil
	}
	n := outHeaderSize + len(a.body)
	for _, d := range a.data {
		n += len(d)
	}
	a.Len = uint32(n)
	return answered
}

// argSize is the length of the operation's structure at the beginning of a request's body, for
// those that serve knows; what follows is the rest.
func argSize(opcode uint32) int {
	switch opcode {
	case opRead, opWrite:
		return readInSize
	case opGetattr, opFsync:
		return 16
	case opRelease:
		return 24
	case opForget, opBatchForget:
		return 8
	}
	return 0
}
