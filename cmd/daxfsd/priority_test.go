package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPriority checks that all threads of a daemon have its niceness, unless the daemon was started
// with another one, and its slice.
func TestPriority(t *testing.T) {
	needFUSE(t)
	for _, own := range []int{0, 5} {
		t.Run(fmt.Sprint(own), func(t *testing.T) {
			region, mp := newRegion(t), mountPoint(t)
			want, slice, mounted := own, uint64(0), make(chan result)
			go func() {
				// The thread exits with this goroutine. If the thread may have that niceness, so
				// may a daemon.
				runtime.LockOSThread()
				if a, err := unix.SchedGetAttr(0, 0); err == nil && a.Runtime != 0 { // 0: the kernel does not support custom slices
					slice = 100_000
				}
				if own == 0 && unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -10) == nil {
					want = -10
				}
				_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), own)
				mounted <- daxfsd(t, "mount", region, mp)
			}()
			if r := <-mounted; r.code != 0 {
				t.Fatalf("%+v", r)
			}
			tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", daemonPID(t, mp)))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range tasks {
				id, _ := strconv.Atoi(e.Name())
				if a, err := unix.SchedGetAttr(id, 0); err == nil && (int(a.Nice) != want || a.Runtime != slice) {
					t.Errorf("thread %d of %d has niceness %d and %d ns, want %d and %d", id, len(tasks), a.Nice, a.Runtime, want, slice)
				}
			}
		})
	}
}
