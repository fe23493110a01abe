package transport

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// niceness is the daemon's, if it may have one and whoever started it did not choose another.
	// Everybody who uses the filesystem waits for it; above all, a thread that other programs keep
	// from running keeps the garbage collector from stopping it, and with it all others.
	niceness = -10
	// slice is what the scheduler gives the daemon's threads at a time (sched_setattr(2), since
	// Linux 6.12; the least there is). Who asks for less comes sooner: before those of the same
	// weight that are running with a longer one, and not at the next tick. docs/performance.md says
	// what both do to pauses.
	slice = 100 * time.Microsecond
)

// Prioritize gives all threads of the process those, as far as it may; threads that they start have
// them, too.
func Prioritize() {
	for range 3 { // a thread may start another while we look
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return
		}
		for _, t := range tasks {
			if id, err := strconv.Atoi(t.Name()); err == nil {
				prioritizeThread(id)
			}
		}
	}
}

// prioritizeThread gives them to one thread, if it is one of the scheduler's ordinary class.
func prioritizeThread(id int) {
	a, err := unix.SchedGetAttr(id, 0)
	if err != nil || a.Policy != unix.SCHED_NORMAL {
		return
	}
	a.Runtime = uint64(slice)
	own := a.Nice
	if own == 0 {
		a.Nice = niceness
	}
	if unix.SchedSetAttr(id, a, 0) == unix.EPERM { // without CAP_SYS_NICE
		a.Nice = own
		_ = unix.SchedSetAttr(id, a, 0)
	}
}
