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
	"time"

	"golang.org/x/sys/unix"
)

// possibleCPUs is the number of CPUs that there may ever be.
func possibleCPUs() (int, error) {
	b, err := os.ReadFile("/sys/devices/system/cpu/possible")
	if err != nil {
		return 0, err
	}
	return countCPUs(strings.TrimSpace(string(b)))
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
		return 0, fmt.Errorf("the possible CPUs are %q", list)
	}
	return n + 1, nil
}

// allowedCPUs are the CPUs that the calling thread may run on.
func allowedCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil { // of more CPUs than a CPUSet holds
		return nil, err
	}
	var cpus []int
	for i := range len(set) * bits.UintSize {
		if set.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	return cpus, nil
}

// pin keeps the calling thread on a CPU. It fails for one that is not there, of which few requests come.
func pin(cpu int) {
	var set unix.CPUSet
	set.Set(cpu)
	_ = unix.SchedSetaffinity(0, &set)
}

// load knows how many threads want to run, on all CPUs. Its methods may be called by all threads.
type load struct {
	cpus    int // that we may run on
	file    *os.File
	mu      sync.Mutex
	pollers []*poller // protected by mu; no more come when requests do
	text    [80]byte  // protected by mu: of file
}

// loadFor is how long what a load said is relied on.
const loadFor = 5 * time.Millisecond

// newLoad reads what is /proc/loadavg but in tests; it returns nil where the kernel does not tell.
func newLoad(file string, cpus int) *load {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	return &load{cpus: cpus, file: f}
}

func (l *load) close() {
	if l != nil {
		_ = l.file.Close()
	}
}

// add makes l know a poller, whose thread is not counted while it only looks for requests. It looks only while most others do
// at most.
func (l *load) add(p *poller, most int) {
	if l != nil {
		l.mu.Lock()
		l.pollers = append(l.pollers, p)
		l.mu.Unlock()
		p.load, p.most = l, most
	}
}

// others is how many threads run or want to, but for the one that asks, which p is of, and how many more of them only look
// for requests.
func (l *load) others(p *poller) (run, look int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	run = l.running() - 1
	for _, o := range l.pollers {
		if o != p && o.looking.Load() {
			run--
			look++
		}
	}
	return run, look
}

// running is how many threads run or want to, on all CPUs. The caller holds mu.
func (l *load) running() int {
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
	for i, c := range text {
		switch {
		case c >= '0' && c <= '9' && n < math.MaxInt32/10-1:
			n = n*10 + int(c-'0')
		case c == '/' && i > 0:
			return n
		default:
			return math.MaxInt32
		}
	}
	return math.MaxInt32
}
