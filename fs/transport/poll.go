package transport

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pollFor is how long a queue's thread polls for the next request before it sleeps. It is about
	// as long as halting and waking a CPU of a virtual machine takes, so that polling in vain costs
	// at most twice as much as sleeping.
	pollFor = 200 * time.Microsecond
	// pollMost is the number of polling threads of one source at which another thread goes to sleep
	// instead. A few threads are enough for the requests, and the other CPUs belong to programs.
	pollMost = 4
	// pollYield is the longest that a yield may take. If it takes longer, another thread is
	// computing on this CPU.
	pollYield = 500 * time.Microsecond
	// pollPause is the number of times that such a yield's duration the thread then sleeps instead
	// of polling: the other threads lose 1 % at most.
	pollPause = 100

	// pollTogether is the number of threads of a source, one for each CPU of the machine, for which
	// source.together holds. Each further thread would keep a CPU awake for other threads'
	// requests: it pays for two only.
	pollTogether = 2
	// pollShare is the longest duration of a yield during which no other thread ran. If one ran,
	// the yield takes at least two system calls and a context switch.
	pollShare = 1 * time.Microsecond
	// pollLook is how long a thread leaves requests to the threads of other CPUs: several times as
	// long as serving one takes.
	pollLook = 50 * time.Microsecond
)

// poller decides whether a queue's thread sleeps or polls while it waits for its next request. A
// thread that sleeps leaves its CPU idle. Where an idle CPU is halted, as in a virtual machine,
// waking it takes longer than serving the request. So while requests come less than pollFor apart,
// the thread polls for the next one for that long, and yields the CPU between two looks. The kernel
// does the same in busy_poll of its sockets and in haltpoll of its guests.
//
// It polls only while there is a CPU for every runnable thread (load). Beside threads that compute,
// polling is worse than sleeping: a thread that has used its share of a CPU is no longer scheduled
// ahead of them when a request wakes it, and sched_yield(2) need not let them run at once. The load
// does not show that a few CPUs are crowded while the affinity of their threads forbids the others;
// the duration of a yield does.
//
// States: asleep -> awake, when two requests come soon after one another and a CPU is to spare.
// Awake -> asleep, when no request comes for pollFor, when one comes and no CPU is to spare, or
// when other threads have had the CPU for too long. One thread uses a poller. long). Used by one
// thread.
type poller struct {
	load   *load // nil: the thread always sleeps
	source *source
	state  atomic.Uint32 // pollAsleep, ...; also read by load and the source's other pollers
	// last is when the last request came or, if the thread polls after it, was served, in ns of
	// clock. The source's other pollers read it.
	last  atomic.Int64
	until int64 // poll until then, ns of clock; 0: asleep
	pause int64 // do not poll before then, ns of clock
}

// The states of a poller.
const (
	pollAsleep  = iota // asleep, or serving a request after which it will sleep
	pollServing        // serving a request, after which it will poll
	pollAwake          // polling
)

type pollers []*poller

// in returns the number of pollers in a state.
func (ps pollers) in(state uint32) (n int) {
	for _, p := range ps {
		if p.state.Load() == state {
			n++
		}
	}
	return n
}

// source is the origin of requests. The queues of /dev/fuse share one source; each ring has its
// own.
type source struct {
	cpus    int     // CPUs of the machine if requests may come from any of them; else 0
	pollers pollers // immutable once the first queue runs
}

// together reports whether the pollers stay awake for each other's requests and leave requests to
// each other. That is so on a machine of two CPUs, over /dev/fuse.
//
// A request is best served on the CPU where it was made: the caller sleeps, the thread serves the
// request and answers, and the caller goes on, without an interrupt to another CPU. With rings the
// kernel arranges this. With /dev/fuse, where all threads read from one queue, the thread that
// polls on an otherwise idle CPU would get the request. So a thread leaves requests to the other
// one if that is up (attended), unless another thread has just run on its own CPU, or the request
// was not taken for pollLook. It also stays awake while requests come, since the scheduler would
// otherwise move the caller to its idle CPU. This doubles the speed of creates, and more than
// doubles that of reads.
func (s *source) together() bool { return s.cpus == pollTogether && len(s.pollers) == pollTogether }

// attended reports whether each CPU has a poller, and all of these are up.
func (s *source) attended() bool { return s.together() && s.pollers.in(pollAsleep) == 0 }

// last returns when the last request that keeps p awake came or was served, in ns of clock.
func (s *source) last(p *poller) int64 {
	at := p.last.Load()
	if s.together() {
		for _, o := range s.pollers {
			at = max(at, o.last.Load())
		}
	}
	return at
}

// came records that a request came at the time now, in ns of clock.
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

// stays returns until when the thread polls after a request that came at the time now, both in ns
// of clock; 0: it sleeps.
func (p *poller) stays(now int64) int64 {
	if now-p.source.last(p) >= int64(pollFor) || now < p.pause || !p.load.maySpin(now) ||
		!p.awake() && p.source.pollers.in(pollAwake) >= pollMost {
		return 0
	}
	return now + int64(pollFor)
}

// awake reports whether the thread polls.
func (p *poller) awake() bool { return p.until != 0 }

// idle is called when polling found no request. It returns when it is time to look again, or to
// sleep.
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

// waits records that there is no request at the time now, in ns of clock.
func (p *poller) waits(now int64) {
	if p.state.Swap(pollAwake) == pollServing {
		p.last.Store(now)
	}
}

// yielded records a yield that lasted from one time to another; the last look was at the time
// looked. It reports whether to look now. Times are in ns of clock.
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
