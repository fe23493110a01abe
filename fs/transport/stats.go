package transport

import (
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// opNames are the kernel's names of the operations (enum fuse_opcode, without FUSE_), by opcode.
var opNames = [...]string{
	0: "UNKNOWN", // any operation that is not in this list
	1: "LOOKUP", 2: "FORGET", 3: "GETATTR", 4: "SETATTR", 5: "READLINK", 6: "SYMLINK", 8: "MKNOD", 9: "MKDIR",
	10: "UNLINK", 11: "RMDIR", 12: "RENAME", 13: "LINK", 14: "OPEN", 15: "READ", 16: "WRITE", 17: "STATFS",
	18: "RELEASE", 20: "FSYNC", 21: "SETXATTR", 22: "GETXATTR", 23: "LISTXATTR", 24: "REMOVEXATTR", 25: "FLUSH",
	26: "INIT", 27: "OPENDIR", 28: "READDIR", 29: "RELEASEDIR", 30: "FSYNCDIR", 31: "GETLK", 32: "SETLK", 33: "SETLKW",
	34: "ACCESS", 35: "CREATE", 36: "INTERRUPT", 37: "BMAP", 38: "DESTROY", 39: "IOCTL", 40: "POLL", 41: "NOTIFY_REPLY",
	42: "BATCH_FORGET", 43: "FALLOCATE", 44: "READDIRPLUS", 45: "RENAME2", 46: "LSEEK", 47: "COPY_FILE_RANGE",
	48: "SETUPMAPPING", 49: "REMOVEMAPPING", 50: "SYNCFS", 51: "TMPFILE", 52: "STATX", 53: "COPY_FILE_RANGE_64",
}

// opIndex returns the operation's index in opNames.
func opIndex(opcode uint32) uint32 {
	if opcode >= uint32(len(opNames)) || opNames[opcode] == "" {
		return 0
	}
	return opcode
}

// counters are the counts of one queue. Only its thread and the goroutines of its slow requests
// write to them, so that no cache line travels between queues. Readers add up the queues' counters.
type counters [len(opNames)]opCounters

// opCounters are the counts of one operation: 15 cache lines.
type opCounters struct {
	begun    atomic.Uint64 // requests read
	failed   atomic.Uint64 // with an errno that failure accepts
	negative atomic.Uint64 // with another errno
	bytes    atomic.Uint64
	max      atomic.Uint64           // longest latency, ns
	buckets  [nbuckets]atomic.Uint64 // requests ended, by latency
	_        [2]uint64
}

// call is a request between begin and end.
type call struct {
	op     *opCounters // nil: ended
	opcode uint32
	since  int64    // when it was read, ns of clock
	req    *Request // nil: not traced
	trace  func(*Request)
}

var epoch = time.Now()

// clock returns the time since the program's start in ns. It is cheaper than time.Now.
func clock() int64 { return int64(time.Since(epoch)) }

// begin counts a request that has just been read. arg and rest are the bytes after its header, in
// one or two pieces.
func (c *counters) begin(h *InHeader, arg, rest []byte, trace func(*Request)) call {
	k := call{op: &c[opIndex(h.Opcode)], opcode: h.Opcode, since: clock()}
	k.op.begun.Add(1)
	if trace != nil {
		k.req, k.trace = newRequest(h, arg, rest), trace
	}
	return k
}

// take moves the call to the caller, which then has to end it.
func (k *call) take() call {
	c := *k
	*k = call{}
	return c
}

// end counts the request as answered. e is 0 or a negative errno as in OutHeader, moved the number
// of bytes moved. Further calls of end do nothing.
func (k *call) end(e int32, moved uint64) {
	if k.op == nil {
		return
	}
	ns := uint64(clock() - k.since)
	k.op.buckets[bucketOf(ns)].Add(1)
	if moved > 0 {
		k.op.bytes.Add(moved)
	}
	switch {
	case e == 0:
	case failure(e):
		k.op.failed.Add(1)
	default:
		k.op.negative.Add(1)
	}
	for m := k.op.max.Load(); ns > m && !k.op.max.CompareAndSwap(m, ns); m = k.op.max.Load() {
	}
	if k.req != nil {
		k.req.end(e, moved, ns)
		k.trace(k.req)
	}
	k.op = nil
}

// failure reports whether a negative errno means that the filesystem failed, for lack of space or
// memory or because of damage. All other errors are regular answers of a healthy filesystem: no
// such name, the name exists, not permitted.
func failure(e int32) bool {
	switch syscall.Errno(-e) {
	case syscall.EIO, syscall.ENOMEM, syscall.EFAULT, syscall.ENFILE, syscall.EMFILE, syscall.ENOSPC, syscall.EDQUOT, syscall.ENOBUFS,
		syscall.EPROTO, syscall.EBADMSG, syscall.ETIMEDOUT, syscall.EUCLEAN, syscall.EREMOTEIO, syscall.ENOTRECOVERABLE, unix.EHWPOISON:
		return true
	}
	return false
}

// endSlow ends the call of a slow request with its answer, which may be empty.
func (k *call) endSlow(out []byte) {
	if h := as[OutHeader](out); h != nil {
		k.end(h.Error, moved(k.opcode, h.Error, len(out)-outHeaderSize, out[outHeaderSize:]))
	} else {
		k.end(0, 0)
	}
}

// moved returns how many bytes a request moved. e is the answer's error, n the number of bytes
// after the answer's header, and body begins with these bytes.
func moved(opcode uint32, e int32, n int, body []byte) uint64 {
	switch {
	case e != 0:
	case opcode == opRead:
		return uint64(n)
	case opcode == opWrite, opcode == opCopyFileRange:
		if w := as[WriteOut](body); w != nil {
			return uint64(w.Size)
		}
	}
	return 0
}

// Stats are the operations served since the connection began, by the kernel's name of the
// operation. Operations that never happened are missing.
type Stats map[string]Operation

// Operation is the statistics of one operation. Latencies are in ns, from reading the request to
// writing its answer or, with io_uring, to putting the answer into the ring. The time before the
// read and the kernel's part are not included.
type Operation struct {
	Count    uint64 `json:"count"`     // requests served
	Errors   uint64 `json:"errors"`    // of Count, failed for lack of space or memory, or because of damage
	Negative uint64 `json:"negative"`  // of Count, answered with another errno, such as ENOENT
	Bytes    uint64 `json:"bytes"`     // moved by READ, WRITE and COPY_FILE_RANGE
	InFlight uint64 `json:"in_flight"` // requests read and not yet answered
	P50      uint64 `json:"p50_ns"`
	P90      uint64 `json:"p90_ns"`
	P99      uint64 `json:"p99_ns"`
	P999     uint64 `json:"p99_9_ns"`
	Max      uint64 `json:"max_ns"`

	Latency Histogram `json:"buckets,omitempty"`
}

// takeQuantiles computes the quantiles from Latency.
func (o *Operation) takeQuantiles() {
	at := func(p float64) uint64 { return min(o.Latency.Quantile(p), o.Max) }
	o.P50, o.P90, o.P99, o.P999 = at(.5), at(.9), at(.99), at(.999)
}

// Plus returns the sum of both; the quantiles are 0 without both histograms.
func (o Operation) Plus(p Operation) Operation {
	o.Count += p.Count
	o.Errors, o.Negative = o.Errors+p.Errors, o.Negative+p.Negative
	o.Bytes, o.InFlight, o.Max = o.Bytes+p.Bytes, o.InFlight+p.InFlight, max(o.Max, p.Max)
	o.Latency = o.Latency.plus(p.Latency)
	o.takeQuantiles()
	return o
}

// minus returns what was done since p. Its Max is at most the bound of a bucket.
func (o Operation) minus(p Operation) Operation {
	o.Errors, o.Negative = o.Errors-min(o.Errors, p.Errors), o.Negative-min(o.Negative, p.Negative)
	o.Bytes -= min(o.Bytes, p.Bytes)
	o.Latency = o.Latency.minus(p.Latency)
	o.Count = o.Latency.Count()
	o.Max = min(o.Max, o.Latency.Quantile(1))
	o.takeQuantiles()
	return o
}

// Plus returns the sum of both.
func (s Stats) Plus(t Stats) Stats {
	sum := Stats{}
	for name, o := range s {
		sum[name] = o
	}
	for name, o := range t {
		sum[name] = sum[name].Plus(o)
	}
	return sum
}

// Since returns what was done after before was taken from the same connection. InFlight is the
// current number, not a difference.
func (s Stats) Since(before Stats) Stats {
	diff := Stats{}
	for name, o := range s {
		if o = o.minus(before[name]); o.Count > 0 || o.InFlight > 0 {
			diff[name] = o
		}
	}
	return diff
}

// Total returns the sum of all operations.
func (s Stats) Total() (t Operation) {
	for _, o := range s {
		t = t.Plus(o)
	}
	return t
}

// Stats returns what the connection has served. It is safe for concurrent use; requests that end
// meanwhile may be in some of the figures only.
func (s *Server) Stats() Stats { return sum(s.counters) }

// sum adds up the counters of queues.
func sum(queues []*counters) Stats {
	s := Stats{}
	for i, name := range opNames {
		var o Operation
		var h [nbuckets]uint64
		for _, q := range queues {
			c, n := &q[i], uint64(0)
			for b := range h {
				v := c.buckets[b].Load()
				h[b], n = h[b]+v, n+v
			}
			o.Count += n
			o.Errors, o.Negative = o.Errors+c.failed.Load(), o.Negative+c.negative.Load()
			o.Bytes, o.Max = o.Bytes+c.bytes.Load(), max(o.Max, c.max.Load())
			o.InFlight += c.begun.Load() - n // read begun last: every ended request has begun
		}
		if o.Count == 0 && o.InFlight == 0 {
			continue
		}
		last := nbuckets
		for last > 0 && h[last-1] == 0 {
			last--
		}
		o.Latency = append(Histogram(nil), h[:last]...)
		o.takeQuantiles()
		s[name] = o
	}
	return s
}
