package transport

import (
	"bytes"
	"syscall"
)

// SlowPath is the error of a Queue for a request that has to wait, or that the Queue does not
// serve.
const SlowPath = syscall.Errno(1 << 20)

// Filesystem is what a connection serves. It is safe for concurrent use.
type Filesystem interface {
	// Queue makes the entry for the n-th thread.
	Queue(n int) Queue
	// SlowPath answers a request that a Queue answered with SlowPath or does not know. in is the
	// whole request; the answer goes to out, and its length in bytes is returned, 0 for no answer.
	// SlowPath may block, inside s.Wait if for long, and is called by any goroutine.
	SlowPath(in, out []byte, s *Slot) int
	// Ended is called once, when the connection has ended and no program waits for answers any
	// more. Slow requests may still run.
	Ended()
	// Panicked is called with the value of a panic while a request was served. The panicking code
	// may still hold locks.
	Panicked(v any)
}

// Queue serves the requests that must be fast: those that move data, and those that a program makes
// for each of many files. No method may retain its arguments. A method returns the error SlowPath
// before it has done anything that must not be done twice; the request then becomes a slow one. A
// Queue is used by one thread.
type Queue interface {
	// Write stores data, and returns how many bytes it stored.
	Write(h *InHeader, in *WriteIn, data []byte) (int, syscall.Errno)
	Release(h *InHeader, in *ReleaseIn) syscall.Errno
	Fsync(h *InHeader, in *FsyncIn) syscall.Errno

	Lookup(h *InHeader, name string, out *EntryOut) syscall.Errno
	Forget(nodeID, nlookup uint64)
	Getattr(h *InHeader, in *GetattrIn, out *AttrOut) syscall.Errno
	Setattr(h *InHeader, in *SetattrIn, out *AttrOut) syscall.Errno
	Open(h *InHeader, in *OpenIn, out *OpenOut) syscall.Errno
	Create(h *InHeader, in *CreateIn, name string, out *CreateOut) syscall.Errno
	Mkdir(h *InHeader, in *MkdirIn, name string, out *EntryOut) syscall.Errno
	Symlink(h *InHeader, name, target string, out *EntryOut) syscall.Errno
	Link(h *InHeader, in *LinkIn, name string, out *EntryOut) syscall.Errno
	Unlink(h *InHeader, name string) syscall.Errno
	Rmdir(h *InHeader, name string) syscall.Errno
	Rename(h *InHeader, in *Rename2In, from, to string) syscall.Errno
	// Read, Readlink and Readdir (READDIRPLUS if plus) put the answer into out and return its
	// length in bytes.
	Read(h *InHeader, in *ReadIn, out []byte) (int, syscall.Errno)
	Readlink(h *InHeader, out []byte) (int, syscall.Errno)
	Readdir(h *InHeader, in *ReadIn, plus bool, out []byte) (int, syscall.Errno)
}

// answer is the answer to a request.
type answer struct {
	OutHeader
	// arg is the answer's structure, one for each kind of operation.
	arg struct {
		write  WriteOut
		attr   AttrOut
		entry  EntryOut
		open   OpenOut
		create CreateOut
	}
	rename Rename2In // the arguments of a RENAME in the form of RENAME2
	// room is for answers of variable length: MaxIO bytes. It may overlap the part of the request
	// after the operation's structure.
	room []byte
	body []byte // the structure in arg, or the beginning of room
}

// Serve serves a whole request with a q that may wait. Filesystem.SlowPath calls it for what a
// queue answered SlowPath to. It puts the answer into out and returns its length in bytes, 0 for no
// answer. ok is false, and nothing was done, for operations that a Queue does not know and for
// malformed requests.
func Serve(q Queue, in, out []byte) (n int, ok bool) {
	h := as[InHeader](in)
	if h == nil || int(h.Len) != len(in) || int(h.TotalExtlen)*8 > len(in)-inHeaderSize || len(out) < outHeaderSize {
		return 0, false
	}
	arg, rest := splitArg(h, in[inHeaderSize:len(in)-int(h.TotalExtlen)*8])
	a := answer{room: out[outHeaderSize:]}
	switch serve(q, h, arg, rest, &a) {
	case slow:
		return 0, false
	case silent:
		return 0, true
	}
	copy(out[outHeaderSize:], a.body)
	copy(out, bytesOf(&a.OutHeader))
	return int(a.Len), true
}

// splitArg splits a request's body into the structure of its operation and what follows.
func splitArg(h *InHeader, body []byte) (arg, rest []byte) {
	if n := argSize(h.Opcode); len(body) >= n {
		return body[:n], body[n:]
	}
	return body, nil
}

// verdict is what to do after serve.
type verdict int

const (
	answered verdict = iota // send the answer
	silent                  // send no answer
	slow                    // hand the request to SlowPath
)

// serve serves one request, given its header, the structure of its operation and the bytes after
// the structure. The parts need not be contiguous, since a ring delivers them separately.
func serve(q Queue, h *InHeader, arg, rest []byte, a *answer) verdict {
	a.Unique, a.body = h.Unique, nil
	e := syscall.EIO // for a request that is too short
	switch h.Opcode {
	case opRead:
		if in := as[ReadIn](arg); in != nil && in.Size <= uint32(len(a.room)) {
			e = a.fill(q.Read(h, in, a.room[:in.Size]))
		}
	case opWrite:
		if in := as[WriteIn](arg); in != nil && int(in.Size) == len(rest) {
			var n int
			if n, e = q.Write(h, in, rest); e == 0 {
				a.arg.write = WriteOut{Size: uint32(n)}
				a.body = bytesOf(&a.arg.write)
			}
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
	case opReleasedir:
		e = 0
	case opReadlink:
		e = a.fill(q.Readlink(h, a.room))
	case opReaddir, opReaddirplus:
		if in := as[ReadIn](arg); in != nil {
			e = a.fill(q.Readdir(h, in, h.Opcode == opReaddirplus, a.room[:min(int(in.Size), len(a.room))]))
		}
	default:
		var known bool
		if e, known = a.serveName(q, h, arg, rest); !known {
			return slow
		}
	}
	if e == SlowPath {
		return slow
	}
	a.Error = -int32(e)
	if e != 0 {
		a.body = nil
	}
	a.Len = uint32(outHeaderSize + len(a.body))
	return answered
}

// fill makes the first n bytes of room the answer.
func (a *answer) fill(n int, e syscall.Errno) syscall.Errno {
	a.body = a.room[:n]
	return e
}

// serveName is the part of serve for operations on attributes and names. known is false for other
// operations.
func (a *answer) serveName(q Queue, h *InHeader, arg, rest []byte) (e syscall.Errno, known bool) {
	e = syscall.EIO
	switch h.Opcode {
	case opGetattr:
		if in := as[GetattrIn](arg); in != nil {
			e = q.Getattr(h, in, out(a, &a.arg.attr))
		}
	case opSetattr:
		if in := as[SetattrIn](arg); in != nil {
			e = q.Setattr(h, in, out(a, &a.arg.attr))
		}
	case opOpen:
		if in := as[OpenIn](arg); in != nil {
			e = q.Open(h, in, out(a, &a.arg.open))
		}
	case opOpendir: // an open directory has no state
		out(a, &a.arg.open)
		e = 0
	case opLookup:
		if name, _, ok := cutName(rest); ok {
			e = q.Lookup(h, name, out(a, &a.arg.entry))
		}
	case opCreate:
		if name, _, ok := cutName(rest); ok {
			if in := as[CreateIn](arg); in != nil {
				e = q.Create(h, in, name, out(a, &a.arg.create))
			}
		}
	case opMkdir:
		if name, _, ok := cutName(rest); ok {
			if in := as[MkdirIn](arg); in != nil {
				e = q.Mkdir(h, in, name, out(a, &a.arg.entry))
			}
		}
	case opLink:
		if name, _, ok := cutName(rest); ok {
			if in := as[LinkIn](arg); in != nil {
				e = q.Link(h, in, name, out(a, &a.arg.entry))
			}
		}
	case opSymlink:
		if name, rest, ok := cutName(rest); ok {
			if target, _, ok := cutName(rest); ok {
				e = q.Symlink(h, name, target, out(a, &a.arg.entry))
			}
		}
	case opUnlink:
		if name, _, ok := cutName(rest); ok {
			e = q.Unlink(h, name)
		}
	case opRmdir:
		if name, _, ok := cutName(rest); ok {
			e = q.Rmdir(h, name)
		}
	case opRename, opRename2:
		if from, rest, ok := cutName(rest); ok {
			if to, _, ok := cutName(rest); ok {
				e = a.serveRename(q, h, arg, from, to)
			}
		}
	default:
		return 0, false
	}
	return e, true
}

// serveRename serves RENAME and RENAME2.
func (a *answer) serveRename(q Queue, h *InHeader, arg []byte, from, to string) syscall.Errno {
	if h.Opcode == opRename2 {
		if in := as[Rename2In](arg); in != nil {
			return q.Rename(h, in, from, to)
		}
	} else if old := as[LinkIn](arg); old != nil { // struct fuse_rename_in starts with the same field
		a.rename = Rename2In{Newdir: old.Oldnodeid}
		return q.Rename(h, &a.rename, from, to)
	}
	return syscall.EIO
}

// out zeroes v, a structure of a.arg, and makes it the answer's body.
func out[T any](a *answer, v *T) *T {
	*v = *new(T)
	a.body = bytesOf(v)
	return v
}

// cutName splits b after its first NUL, and returns the name before the NUL and the bytes after it.
// ok is false if b has no NUL. The name is valid as long as b.
func cutName(b []byte) (name string, rest []byte, ok bool) {
	n := bytes.IndexByte(b, 0)
	if n < 0 {
		return "", nil, false
	}
	return nameOf(b[:n]), b[n+1:], true
}

// argSize returns the size in bytes of the operation's structure at the beginning of a request's
// body, for the operations that serve knows; 0 for all others.
func argSize(opcode uint32) int {
	switch opcode {
	case opRead, opWrite, opReaddir, opReaddirplus:
		return readInSize
	case opSetattr:
		return setattrInSize
	case opGetattr, opFsync, opCreate, opRename2:
		return 16
	case opRelease, opReleasedir:
		return 24
	case opForget, opBatchForget, opOpen, opOpendir, opMkdir, opLink, opRename:
		return 8
	}
	return 0
}
