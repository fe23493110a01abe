package transport

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"time"
)

// Request is a request that was served, as Options.Trace receives it.
type Request struct {
	Op      string // the kernel's name of the operation
	Unique  uint64 // the kernel's number of the request
	NodeID  uint64
	UID     uint32
	PID     uint32 // calling thread; 0: the kernel itself, or a thread of another namespace
	Name    string // "": the request has no name
	NewName string // new name of RENAME and RENAME2, target of SYMLINK
	Ranged  bool   // the request has an Offset and a Size
	Offset  uint64 // bytes
	Size    uint64 // bytes asked for

	Error syscall.Errno // the answer's, 0: success
	Moved uint64        // bytes; see Operation.Bytes
	Took  time.Duration // see Operation
}

// traced is how many bytes of a request are parsed: enough for the longest structure and two names.
const traced = 1 << 10

// named gives, for each operation, the offset in bytes of the names in its request, and their
// number.
var named = map[uint32]struct{ at, n int }{
	opLookup: {0, 1}, opSymlink: {0, 2}, opMknod: {16, 1}, opMkdir: {8, 1}, opUnlink: {0, 1}, opRmdir: {0, 1}, opRename: {8, 2},
	opLink: {8, 1}, opSetxattr: {16, 1}, opGetxattr: {8, 1}, opRemovexattr: {0, 1}, opCreate: {16, 1}, opRename2: {16, 2},
	opTmpfile: {16, 1},
}

// ranged gives, for each operation, the offsets in bytes of the offset and size fields in its
// request, and the width in bytes of the size field (0: none).
var ranged = map[uint32]struct{ off, size, width int }{
	opRead: {8, 16, 4}, opWrite: {8, 16, 4}, opReaddir: {8, 16, 4}, opReaddirplus: {8, 16, 4},
	opFallocate: {8, 16, 8}, opCopyFileRange: {8, 40, 8}, opLseek: {8, 0, 0},
}

// newRequest describes a request, given its header and the bytes after it in one or two pieces.
func newRequest(h *InHeader, arg, rest []byte) *Request {
	r := &Request{Op: opNames[opIndex(h.Opcode)], Unique: h.Unique, NodeID: h.NodeID, UID: h.UID, PID: h.PID}
	b := bytes.Join([][]byte{arg[:min(len(arg), traced)], rest[:min(len(rest), traced)]}, nil)
	if f, ok := named[h.Opcode]; ok && len(b) > f.at {
		names := bytes.SplitN(b[f.at:], []byte{0}, f.n+1)
		r.Name = string(names[0])
		if f.n > 1 && len(names) > 1 {
			r.NewName = string(names[1])
		}
	}
	if f, ok := ranged[h.Opcode]; ok && len(b) >= max(f.off+8, f.size+f.width) {
		r.Ranged, r.Offset = true, binary.NativeEndian.Uint64(b[f.off:])
		switch f.width {
		case 4:
			r.Size = uint64(binary.NativeEndian.Uint32(b[f.size:]))
		case 8:
			r.Size = binary.NativeEndian.Uint64(b[f.size:])
		}
	}
	return r
}

// end completes r with the answer's error, the bytes moved and the latency in ns.
func (r *Request) end(e int32, moved, ns uint64) {
	r.Error, r.Moved, r.Took = syscall.Errno(-e), moved, time.Duration(ns)
}
