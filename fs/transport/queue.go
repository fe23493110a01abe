package transport

import (
	"bytes"
	"syscall"
)

// SlowPath is what a Queue answers if a request has to wait, or is not its to serve.
const SlowPath = syscall.Errno(1 << 20)

// Filesystem is what a connection serves. It is safe for concurrent use.
type Filesystem interface {
	// Queue makes the entry of the n-th thread.
	Queue(n int) Queue
	// SlowPath answers a request as it came, one that a Queue answered SlowPath to or does not
	// know; out takes the answer, of which the length is returned, 0 for none. It may block, by
	// s.Wait if that is for long, and is called by any goroutine.
	SlowPath(in, out []byte, s *Slot) int
	// Ended is told, once, that the connection has ended: nobody waits for answers any more.
	// SlowPath requests may still run.
	Ended()
	// Panicked is told of a panic while a request was served, of which locks may be held.
	Panicked(v any)
}

// Queue serves the requests that must be fast: those that move data, and those that a program
// makes for each of many files. No call may keep what it is given. An error of
// SlowPath makes the request a slow one, before anything was done that doing it again would spoil.
// It is used by one thread.
type Queue interface {
	// Write stores data, and returns how much of it.
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
	// length.
	Read(h *InHeader, in *ReadIn, out []byte) (int, syscall.Errno)
	Readlink(h *InHeader, out []byte) (int, syscall.Errno)
	Readdir(h *InHeader, in *ReadIn, plus bool, out []byte) (int, syscall.Errno)
}

// answer is what goes back of a request.
type answer struct {
	OutHeader
	// arg is the operation's structure.
	arg struct {
		write  WriteOut
		attr   AttrOut
		entry  EntryOut
		open   OpenOut
		create CreateOut
	}
	rename Rename2In // of a RENAME, which says less
	room   []byte    // for answers of other lengths: MaxIO bytes; what followed the request's structure may lie there
	body   []byte    // the structure, or the beginning of room
}

// Serve serves a request as it came by q, which may wait: in Filesystem.SlowPath, what a queue
// answered SlowPath to. It puts the answer into out and returns its length, 0 if there is none; ok
// is false, and nothing was done, for operations that a Queue does not know.
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

// verdict is what becomes of a request.
type verdict int

const (
	answered verdict = iota // the answer is to be sent
	silent                  // there is none
	slow                    // it is for SlowPath
)

// serve serves one request: its header, the structure of its operation and what follows that.
// For a request whose parts arrive separately they need not lie together.
func serve(q Queue, h *InHeader, arg, rest []byte, a *answer) verdict {
	a.Unique, a.body = h.Unique, nil
	e := syscall.EIO // of what is too short
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

// serveName is serve for operations on attributes and names.
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
	case opOpendir: // nothing is kept of an open directory
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

func (a *answer) serveRename(q Queue, h *InHeader, arg []byte, from, to string) syscall.Errno {
	if h.Opcode == opRename2 {
		if in := as[Rename2In](arg); in != nil {
			return q.Rename(h, in, from, to)
		}
	} else if old := as[LinkIn](arg); old != nil { // struct fuse_rename_in has a nodeid, too
		a.rename = Rename2In{Newdir: old.Oldnodeid}
		return q.Rename(h, &a.rename, from, to)
	}
	return syscall.EIO
}

// out makes a structure of a.arg, zeroed, the answer.
func out[T any](a *answer, v *T) *T {
	*v = *new(T)
	a.body = bytesOf(v)
	return v
}

// cutName is the name that b begins with, and what follows its NUL.
func cutName(b []byte) (name string, rest []byte, ok bool) {
	n := bytes.IndexByte(b, 0)
	if n < 0 {
		return "", nil, false
	}
	return nameOf(b[:n]), b[n+1:], true
}

// argSize is the length of the operation's structure at the beginning of a request's body, for
// those that serve knows; what follows is the rest.
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
