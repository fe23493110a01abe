package transport

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// pollFor is how long a queue's thread looks for its next request before it sleeps.
const pollFor = 200 * time.Microsecond

// devPollers is how many threads look at the same time for the requests of /dev/fuse, which all lie in one queue
// under one lock.
const devPollers = 4

// poller says whether a queue's thread waits for its next request asleep or awake. A thread that sleeps leaves its
// CPU idle, and where that is halted, as a virtual machine's is, it takes longer to wake it than to serve the request.
// So while requests come with less than pollFor between them, the thread looks for the next one for so long, and lets
// others run between two looks. The kernel does the same in busy_poll of its sockets and haltpoll of its guests.
//
// It does so only while fewer threads want to run than there are CPUs. Beside others that compute, looking is worse than
// sleeping: a thread that has had its share of a CPU does not come before them any more when a request wakes it, and
// sched_yield(2) need not let them run at once.
//
// Asleep (until two requests come soon after one another, and a CPU is to spare) -> awake (until none comes for
// pollFor, or others want the CPUs). Used by one thread.
type poller struct {
	load    *load       // nil: it always sleeps
	most    int         // how many others may look at the same time
	looking atomic.Bool // the last look found nothing, and it will look again; load reads it
	last    int64       // when a request came, of clock
	until   int64       // look until then; 0 is asleep
	check   int64       // when to ask load again
	spare   bool        // what it said
}

// came notes that a request has come, at a time of clock.
func (p *poller) came(now int64) {
	if p.until != 0 {
		p.looking.Store(false)
	}
	if now-p.last < int64(pollFor) {
		if p.until = 0; p.maySpin(now) {
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
	_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
	p.idle(clock())
}

// idle notes that nothing has come until a time of clock.
func (p *poller) idle(now int64) {
	if now >= p.until || !p.maySpin(now) {
		p.until = 0
		p.looking.Store(false)
	}
}

// maySpin is whether there is a CPU to spare.
func (p *poller) maySpin(now int64) bool {
	if p.load == nil {
		return false
	}
	if now >= p.check {
		p.check = now + int64(loadFor)
		run, look := p.load.others(p)
		p.spare = run < p.load.cpus && look <= p.most
	}
	return p.spare
}
