package transport

import (
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// niceness is the daemon's nice value, if it may set one and its starter did not choose
	// another. Every user of the filesystem waits for the daemon. Moreover, a thread that is kept
	// from running by other programs delays the garbage collector's stop of the world, and with it
	// all threads.
	niceness = -10
	// slice is the scheduler's time slice for the daemon's threads: the minimum of
	// sched_setattr(2), since Linux 6.12. A thread with a shorter slice preempts running threads of
	// the same weight that have a longer one, instead of waiting for the next tick.
	// docs/performance.md has the effect of both on pauses.
	slice = 100 * time.Microsecond
)

// Prioritize sets niceness and slice for all threads of the process, as far as permitted. Threads
// that they start inherit both.
func Prioritize() {
	for range 3 { // a thread may start another during the scan
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

// prioritizeThread sets niceness and slice for a thread that is in the scheduler's ordinary class.
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
