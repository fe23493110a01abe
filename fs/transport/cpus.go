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

// cpusInState returns the number of CPUs of the machine in a state: "possible" (including CPUs that
// may be plugged in later) or "online".
func cpusInState(state string) (int, error) {
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

// countCPUs returns the number of CPUs in a CPU list of sysfs, "0-127". The list must have no gap:
// the kernel sizes its array of queues by the count of CPUs, but indexes it by CPU number.
func countCPUs(list string) (int, error) {
	if list == "0" {
		return 1, nil
	}
	last, many := strings.CutPrefix(list, "0-")
	n, err := strconv.Atoi(last)
	if !many || err != nil || n < 1 || n > 1<<16 {
		return 0, fmt.Errorf("the list is %q, expected one range from 0", list)
	}
	return n + 1, nil
}

// allowedCPUs returns the CPUs that the calling thread may run on, or nil if the machine has more
// CPUs than a CPUSet holds.
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

// pin binds the calling thread to a CPU, and reports whether the CPU exists and is allowed.
func pin(cpu int) bool {
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(0, &set) == nil
}

// load measures how many threads want to run, on all CPUs. Its methods are safe for concurrent use.
type load struct {
	cpus    int     // CPUs that the process may run on
	pollers pollers // immutable once the first queue runs
	file    *os.File

	check atomic.Int64 // when to ask the kernel again, ns of clock
	spare atomic.Bool  // whether the last answer left a CPU to spare

	mu   sync.Mutex
	text [80]byte // protected by mu: buffer for file's content
}

// loadFor is how long an answer of the kernel is used.
const loadFor = 5 * time.Millisecond

// newLoad returns nil if /proc/loadavg is missing or is not the kernel's own (lxcfs serves it in
// containers): reading it must not wait for another process.
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

// add registers a poller with l and with its source. It must not be called once a queue runs.
func (l *load) add(p *poller, s *source) {
	if l != nil {
		l.pollers = append(l.pollers, p)
		s.pollers = append(s.pollers, p)
		p.load, p.source = l, s
	}
}

// maySpin reports whether the calling thread, which serves a request, may poll for the next one. It
// may if there is a CPU for every runnable thread; pollers do not count, since they yield. The
// answer comes from the kernel, at most once per loadFor for all threads. now is in ns of clock.
func (l *load) maySpin(now int64) bool {
	if at := l.check.Load(); now >= at && l.check.CompareAndSwap(at, now+int64(loadFor)) {
		run, awake := l.count()
		l.spare.Store(run-awake <= l.cpus)
	}
	return l.spare.Load()
}

// count returns the number of runnable threads, including the calling one, and how many of these
// are only polling.
func (l *load) count() (run, awake int) {
	awake = l.pollers.in(pollAwake)
	return l.running(), awake
}

// running returns the number of runnable threads on all CPUs, or MaxInt32 if it cannot be read.
func (l *load) running() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := unix.Pread(int(l.file.Fd()), l.text[:], 0)
	if err != nil {
		return math.MaxInt32
	}
	return runningOf(l.text[:n])
}

// runningOf parses the number of runnable threads, 1 here, from /proc/loadavg: "0.20 0.18 0.12 1/80
// 11206". It returns MaxInt32 for text that it cannot parse.
func runningOf(text []byte) (n int) {
	for range 3 {
		i := bytes.IndexByte(text, ' ')
		text = text[i+1:]
	}
	for _, c := range text {
		switch {
		case c >= '0' && c <= '9' && n < math.MaxInt32/10-1:
			n = n*10 + int(c-'0')
		case c == '/' && n > 0: // 0 is impossible: this thread runs
			return n
		default:
			return math.MaxInt32
		}
	}
	return math.MaxInt32
}
