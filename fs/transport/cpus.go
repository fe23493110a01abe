package transport

import (
	"bytes"
	"fmt"
	"math"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// cpusThatAre is the number of CPUs of the machine in a state: "possible" (that there may ever be),
// "online".
func cpusThatAre(state string) (int, error) {
	b, err := os.ReadFile("/sys/devices/system/cpu/" + state)
	if err != nil {
		return 0, err
	}
	n, err := countCPUs(strings.TrimSpace(string(b)))
	if err != nil {
		return 0, fmt.Errorf("the %s CPUs: %w", state, err)
	}
	return n, nil
}

// countCPUs is how many CPUs a list of the kernel's has. It must have no gap: the kernel counts
// the CPUs for the number of queues, but takes the number of a CPU for that of its queue.
func countCPUs(list string) (int, error) {
	if list == "0" {
		return 1, nil
	}
	last, many := strings.CutPrefix(list, "0-")
	n, err := strconv.Atoi(last)
	if !many || err != nil || n < 1 || n > 1<<16 {
		return 0, fmt.Errorf("they are %q", list)
	}
	return n + 1, nil
}

// allowedCPUs are the CPUs that the calling thread may run on; none if there are more than a CPUSet
// holds.
func allowedCPUs() (cpus []int) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	for i := range len(set) * bits.UintSize {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus
}

// pin keeps the calling thread on a CPU, if it is there and we may run on it.
func pin(cpu int) bool {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(0, &set) == nil
}

// load knows how many threads want to run, on all CPUs. Its methods may be called by all threads.
type load struct {
	cpus    int     // that we may run on
	pollers pollers // immutable when the first queue runs
	file    *os.File

	check atomic.Int64 // when to ask again, of clock
	spare atomic.Bool  // what the answer was

	mu   sync.Mutex
	text [80]byte // protected by mu: of file
}

// loadFor is how long what a load said is relied on.
const loadFor = 5 * time.Millisecond

// newLoad returns nil where the kernel does not tell, or where it is not the kernel that does
// (lxcfs), which must not be waited for.
func newLoad(cpus int) *load {
	f, err := os.Open("/proc/loadavg")
	if err != nil {
		return nil
	}
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) != nil || st.Type != unix.PROC_SUPER_MAGIC {
		_ = f.Close()
		return nil
	}
	return &load{cpus: cpus, file: f}
}

func (l *load) close() {
	if l != nil {
		_ = l.file.Close()
	}
}

// add makes l know a poller of a source, and the poller both. Not when a queue runs.
func (l *load) add(p *poller, s *source) {
	if l != nil {
		l.pollers = append(l.pollers, p)
		s.pollers = append(s.pollers, p)
		p.load, p.source = l, s
	}
}

// maySpin is whether the calling thread, which serves a request, may wait awake for the next:
// whether there is a CPU for every thread that runs or wants to, except those that wait awake,
// which make room. It asks the kernel, or knows from another thread that has just done so.
func (l *load) maySpin(now int64) bool {
	if at := l.check.Load(); now >= at && l.check.CompareAndSwap(at, now+int64(loadFor)) {
		run, awake := l.count()
		l.spare.Store(run-awake <= l.cpus)
	}
	return l.spare.Load()
}

// count is how many threads run or want to, the calling one too, and how many of them only wait
// awake.
func (l *load) count() (run, awake int) {
	awake = l.pollers.in(pollAwake)
	return l.running(), awake
}

// running is how many threads run or want to, on all CPUs.
func (l *load) running() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := unix.Pread(int(l.file.Fd()), l.text[:], 0)
	if err != nil {
		return math.MaxInt32
	}
	return runningOf(l.text[:n])
}

// runningOf finds that in the text of /proc/loadavg: "0.20 0.18 0.12 1/80 11206".
func runningOf(text []byte) (n int) {
	for range 3 {
		i := bytes.IndexByte(text, ' ')
		text = text[i+1:]
	}
	for _, c := range text {
		switch {
		case c >= '0' && c <= '9' && n < math.MaxInt32/10-1:
			n = n*10 + int(c-'0')
		case c == '/' && n > 0: // we run, at least
			return n
		default:
			return math.MaxInt32
		}
	}
	return math.MaxInt32
}
