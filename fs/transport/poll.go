package transport

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pollFor is how long a queue's thread stays awake for the next request: about as long as it
	// takes to halt a CPU of a virtual machine and wake it again, so that looking in vain costs at
	// most twice what sleeping does.
	pollFor = 200 * time.Microsecond
	// pollMost is how many threads that take requests from the same descriptor wait awake when one
	// more goes to sleep: whatever the machine has, a few are enough to take what comes, and the
	// others' CPUs belong to the programs.
	pollMost = 4
	// pollYield is how long others may run when they are let: several of the scheduler's shortest
	// slices would be a CPU that somebody computes on.
	pollYield = 500 * time.Microsecond
	// pollPause is how many times as long as that took the thread then sleeps without looking:
	// others lose 1 % at most.
	pollPause = 100
)

// poller says whether a queue's thread waits for its next request asleep or awake. A thread that
// sleeps leaves its CPU idle, and where that is halted, as a virtual machine's is, it takes longer
// to wake it than to serve the request. So while requests come with less than pollFor between them,
// the thread looks for the next one for so long, and lets others run between two looks. The kernel
// does the same in busy_poll of its sockets and haltpoll of its guests.
//
// All this only while there are CPUs for all threads that want to run (load). Beside others that
// compute, looking is worse than sleeping: a thread that has had its share of a CPU does not come
// before them any more when a request wakes it, and sched_yield(2) need not let them run at once.
// What the load cannot tell, that few CPUs are crowded and the others are not for those who are
// there, shows when it does let them run.
//
// Asleep (until two requests come soon after one another, and a CPU is to spare) -> awake (until
// none comes for pollFor, one comes when no CPU is to spare, or others have had the CPU for too
// long). Used by one thread.
type poller struct {
	load  *load       // nil: it always sleeps
	peers *pollers    // those that take requests from the same descriptor
	waits atomic.Bool // it waits awake; load and the peers read it
	last  int64       // when the last request came, or had been served if it waited for the next awake; of clock
	until int64       // wait awake until then; 0: asleep
	pause int64       // and not before that
}

// pollers are the threads of one descriptor, or of all. Immutable when the first queue runs.
type pollers []*poller

// awake is how many wait awake.
func (ps pollers) awake() (n int) {
	for _, p := range ps {
		if p.waits.Load() {
			n++
		}
	}
	return n
}

// came notes that a request has come, at a time of clock.
func (p *poller) came(now int64) {
	if p.load == nil {
		return
	}
	p.until = p.stays(now)
	p.waits.Store(false)
	p.last = now
}

// stays is until when the thread stays awake, to which a request has come, at a time of clock; 0:
// it sleeps.
func (p *poller) stays(now int64) int64 {
	if now-p.last >= int64(pollFor) || now < p.pause || !p.load.maySpin(now) || !p.awake() && p.peers.awake() >= pollMost {
		return 0
	}
	return now + int64(pollFor)
}

// awake is whether to look, and not to sleep.
func (p *poller) awake() bool { return p.until != 0 }

// idle is told that a look found nothing. It lets others run, and returns when it is time for the
// next look, or to sleep.
func (p *poller) idle() {
	from := clock()
	p.wait(from)
	_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	p.yielded(from, clock())
}

// wait notes that there is no request, at a time of clock.
func (p *poller) wait(now int64) {
	if !p.waits.Swap(true) {
		p.last, p.until = now, now+int64(pollFor)
	}
}

// yielded notes that others could run from one time to another.
func (p *poller) yielded(from, to int64) {
	long := to-from > int64(pollYield)
	if long {
		p.pause = to + pollPause*(to-from)
	}
	if long || to >= p.until {
		p.until = 0
		p.waits.Store(false)
	}
}
