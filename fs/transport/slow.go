package transport

import (
	"runtime"
	"sync"
)

// slowSizes are the sizes in bytes of the buffers that slow requests and their answers are in. The
// second is for attributes, whose values and lists of names are 64 KiB at most, and for ioctl(2),
// of which an argument has less than 16.
var slowSizes = [...]int{8 << 10, 80 << 10, MaxIO + 64<<10}

// slowBuffer is memory for a slow request or for its answer.
type slowBuffer struct {
	b    []byte
	pool *sync.Pool
}

func (c *slowBuffer) free() { c.pool.Put(c) }

// slowRequests serves slow requests, on goroutines.
type slowRequests struct {
	fs    Filesystem
	done  *sync.WaitGroup
	slots *slots
	pools [len(slowSizes)]sync.Pool // *coldBuffer
}

func newSlowRequests(fs Filesystem, done *sync.WaitGroup) *slowRequests {
	c := &slowRequests{fs: fs, done: done, slots: newSlots(runtime.NumCPU())}
	for i, n := range slowSizes {
		pool := &c.pools[i]
		pool.New = func() any { return &slowBuffer{make([]byte, n), pool} }
	}
	return c
}

// buffer is one of n bytes or more.
func (c *slowRequests) buffer(n int) *slowBuffer {
	size := 0
	for n > slowSizes[size] {
		size++
	}
	return c.pools[size].Get().(*slowBuffer)
}

// answerSize is how long the answer to a request may be.
func answerSize(opcode uint32) int {
	switch opcode {
	case opGetxattr, opListxattr, opIoctl:
		return slowSizes[1]
	case opRead, opReaddir, opReaddirplus:
		return slowSizes[2]
	}
	return slowSizes[0]
}

// start has a request served when it is its turn, and then calls answer, with nothing if there is
// none. The request comes in pieces, which are copied.
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
		out := c.buffer(answerSize(h.Opcode)) // now, not while it waits for its turn
		answer(out.b[:c.fs.SlowPath(all, out.b, s)])
		in.free()
		out.free()
	}
	if h.Opcode == opInterrupt { // what it is for may wait for its turn
		go job(nil)
		return
	}
	c.slots.submit(h.UID, job)
}
