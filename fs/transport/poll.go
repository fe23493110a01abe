package transport

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pollFor is how long a queue's thread looks for its next request before it sleeps.
	pollFor = 200 * time.Microsecond
	// pollYield is how long others may take between two looks; if they take more, the thread does not look for pollPause
	// times as long.
	pollYield = 50 * time.Microsecond
	pollPause = 100
)

// poller says whether a queue's thread waits for its next request asleep or awake. A thread that sleeps leaves its
// CPU idle, and where that is halted, as a virtual machine's is, it takes longer to wake it than to serve the request.
// So while requests come with less than pollFor between them, the thread looks for the next one for so long, and lets
// others run between two looks. The kernel does the same in busy_poll of its sockets and haltpoll of its guests.
//
// It does so only while there are CPUs for all threads that want to run, and for it (load). Beside others that compute, looking is
// worse than sleeping: a thread that has had its share of a CPU does not come before them any more when a request wakes it,
// and sched_yield(2) need not let them run at once. What the load cannot tell, that few CPUs are crowded and the others are not for
// those who are there, shows when it does let them run.
//
// Asleep (until two requests come soon after one another, and a CPU is to spare) -> awake (until none comes for
// pollFor, one comes when no CPU is to spare, or others have had the CPU for too long). Used by one thread.
type poller struct {
	load    *load       // nil: it always sleeps
	looking atomic.Bool // the last look found nothing, and it will look again; load reads it
	last    int64       // when a request came, of clock
	until   int64       // look until then; 0 is asleep
	pause   int64       // and not before that
}

// came notes that a request has come, at a time of clock.
func (p *poller) came(now int64) {
	if p.load == nil {
		return
	}
	if p.until != 0 {
		p.looking.Store(false)
	}
	if now-p.last < int64(pollFor) {
		if p.until = 0; now >= p.pause && p.load.maySpin(now) {
			p.until = now + int64(pollFor)
		}
	}
	p.last = now
}

// awake is whether to look again, and not to sleep.
func (p *poller) awake() bool { return p.until != 0 }

// yield lets others run after a look that found nothing.
func (p *poller) yield() {
	p.looking.Store(true)
	from := clock()
	_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	p.yielded(from, clock())
}

// yielded notes that nothing had come, and that others could run from one time to another.
func (p *poller) yielded(from, to int64) {
	if to-from > int64(pollYield) {
		p.pause, p.until = to+pollPause*(to-from), 0
	}
	if to >= p.until {
		p.until = 0
		p.looking.Store(false)
	}
}
