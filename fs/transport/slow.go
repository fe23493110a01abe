package transport

import (
	"runtime"
	"sync"
)

// slowSizes are the sizes in bytes of the buffers for slow requests and their answers. The second
// size is for extended attributes, whose values and lists of names have at most 64 KiB, and for
// ioctl(2), whose argument has less than 16 KiB.
var slowSizes = [...]int{8 << 10, 80 << 10, MaxIO + 64<<10}

// slowBuffer is memory for a slow request or for its answer.
type slowBuffer struct {
	b    []byte
	pool *sync.Pool
}

func (c *slowBuffer) free() { c.pool.Put(c) }

// slowRequests serves slow requests on goroutines.
type slowRequests struct {
	fs    Filesystem
	done  *sync.WaitGroup
	slots *slots
	pools [len(slowSizes)]sync.Pool // *slowBuffer
}

func newSlowRequests(fs Filesystem, done *sync.WaitGroup) *slowRequests {
	c := &slowRequests{fs: fs, done: done, slots: newSlots(runtime.NumCPU())}
	for i, n := range slowSizes {
		pool := &c.pools[i]
		pool.New = func() any { return &slowBuffer{make([]byte, n), pool} }
	}
	return c
}

// buffer returns a buffer of at least n bytes.
func (c *slowRequests) buffer(n int) *slowBuffer {
	size := 0
	for n > slowSizes[size] {
		size++
	}
	return c.pools[size].Get().(*slowBuffer)
}

// answerSize returns the size in bytes of the buffer for the answer to a request.
func answerSize(opcode uint32) int {
	switch opcode {
	case opGetxattr, opListxattr, opIoctl:
		return slowSizes[1]
	case opRead, opReaddir, opReaddirplus:
		return slowSizes[2]
	}
	return slowSizes[0]
}

// start serves a request on a goroutine when it is the user's turn, and then calls answer. out is
// empty if the request has no answer. start copies the request, which comes in pieces.
func (c *slowRequests) start(answer func(out []byte), pieces ...[]byte) {
	n := 0
	for _, p := range pieces {
		n += len(p)
	}
	in := c.buffer(n)
	all := in.b[:0]
	for _, p := range pieces {
		all = append(all, p...)
	}
	h := as[InHeader](all)
	c.done.Add(1)
	job := func(s *Slot) {
		defer c.done.Done()
		out := c.buffer(answerSize(h.Opcode)) // not before its turn: a waiting request needs no buffer
		answer(out.b[:c.fs.SlowPath(all, out.b, s)])
		in.free()
		out.free()
	}
	if h.Opcode == opInterrupt { // not counted: the request that it interrupts may be waiting for its turn
		go job(nil)
		return
	}
	c.slots.submit(h.UID, job)
}
