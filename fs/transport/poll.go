package transport

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pollFor is how long a queue's thread stays awake for the next request before it sleeps:
	// about
	// as long as it takes to halt a CPU of a virtual machine and wake it again, so that
	// looking in
	// vain costs at most twice what sleeping does.
	pollFor = 200 * time.Microsecond
	// pollMost is how many threads that take requests from the same source wait awake when
	// one more
	// goes to sleep: a few are enough to take what comes, and the other CPUs are the programs'.
	pollMost = 4
	// pollYield is how long others may run when they are let: if it takes longer, somebody
	// computes
	// on this CPU.
	pollYield = 500 * time.Microsecond
	// pollPause is how many times as long as that took the thread then sleeps without
	// looking: the
	// others lose 1 % at most.
	pollPause = 100

	// pollTogether is for how many threads of a source, one for each CPU of the machine,
	// together
	// holds. Each more would keep a CPU awake for the others' requests: two are what pays.
	pollTogether = 2
	// pollShare is what a yield takes in which nobody else has run; there are two system
	// calls and
	// a switch in any other.
	pollShare = 1 * time.Microsecond
	// pollLook is how long a thread leaves requests to those of other CPUs: some times what
	// serving
	// one takes.
	pollLook = 50 * time.Microsecond
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
	load   *load // nil: it always sleeps
	source *source
	state  atomic.Uint32 // pollAsleep, ...; load and the source's others read it
	// last is when a request came or, if it looked for the next then, had been served, of
	// clock; the
	// source's others read it.
	last  atomic.Int64
	until int64 // wait awake until then; 0: asleep
	pause int64 // and not before that
}

// The states of a poller.
const (
	pollAsleep  = iota // or it serves a request and will sleep if there is none then
	pollServing        // it serves a request, and looks for the next then
	pollAwake          // it waits awake
)

type pollers []*poller

// in is how many are in a state.
func (ps pollers) in(state uint32) (n int) {
	for _, p := range ps {
		if p.state.Load() == state {
			n++
		}
	}
	return n
}

// source is what queues take their requests from: those of /dev/fuse have one in common, each
// ring has its own.
type source struct {
	cpus    int     // of the machine, if requests are made on any of them; 0
	pollers pollers // immutable when the first queue runs
}

// together is whether the pollers stay awake for each other's requests, and leave them to each
// other: on a machine of two CPUs, over /dev/fuse. A request is best served on the CPU where it was
// made: who made it sleeps, the thread runs and answers, and who made it goes on, without an
// interrupt to another CPU. From a ring the kernel has it so. From /dev/fuse, where all take their
// requests from one queue, a thread would get them that looks on a CPU which nobody else wants. So
// a thread leaves requests to the other, if that is up (attended), unless somebody ran on its own
// CPU just now, or nobody takes them for pollLook; and it stays awake while they come, or whoever
// makes one would be moved to its idle CPU. Creates are twice as fast by that, and reads more.
func (s *source) together() bool { return s.cpus == pollTogether && len(s.pollers) == pollTogether }

// attended is whether each CPU has a poller, and all are up.
func (s *source) attended() bool { return s.together() && s.pollers.in(pollAsleep) == 0 }

// last is when the last request that keeps a poller awake came or had been served, of clock.
func (s *source) last(p *poller) int64 {
	at := p.last.Load()
	if s.together() {
		for _, o := range s.pollers {
			at = max(at, o.last.Load())
		}
	}
	return at
}

// came notes that a request has come, at a time of clock.
func (p *poller) came(now int64) {
	if p.load == nil {
		return
	}
	if p.until = p.stays(now); p.awake() {
		p.state.Store(pollServing)
	} else {
		p.state.Store(pollAsleep)
	}
	p.last.Store(now)
}

// stays is until when the thread stays awake, to which a request has come, at a time of clock; 0:
// it sleeps.
func (p *poller) stays(now int64) int64 {
	if now-p.source.last(p) >= int64(pollFor) || now < p.pause || !p.load.maySpin(now) ||
		!p.awake() && p.source.pollers.in(pollAwake) >= pollMost {
		return 0
	}
	return now + int64(pollFor)
}

// awake is whether to look, and not to sleep.
func (p *poller) awake() bool { return p.until != 0 }

// idle is told that a look found nothing. It returns when it is time for the next, or to sleep.
func (p *poller) idle() {
	from := clock()
	p.waits(from)
	for looked := from; p.awake(); {
		_, _, _ = unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		to := clock()
		if p.yielded(looked, from, to) {
			return
		}
		from = to
	}
}

// waits notes that there is no request, at a time of clock.
func (p *poller) waits(now int64) {
	if p.state.Swap(pollAwake) == pollServing {
		p.last.Store(now)
	}
}

// yielded notes that others could run from one time to another, since it has looked in vain. It is
// whether to look now.
func (p *poller) yielded(looked, from, to int64) bool {
	if to >= p.until {
		p.until = p.source.last(p) + int64(pollFor)
	}
	long := to-from > int64(pollYield)
	if long {
		p.pause = to + pollPause*(to-from)
	}
	if long || to >= p.until {
		p.until = 0
		p.state.Store(pollAsleep)
		return false
	}
	return to-from > int64(pollShare) || to-looked > int64(pollLook) || !p.source.attended()
}
