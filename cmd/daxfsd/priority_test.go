package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestPriority: all threads of a daemon have its niceness, unless it was started with one of its own.
func TestPriority(t *testing.T) {
	needFUSE(t)
	for _, own := range []int{0, 5} {
		t.Run(fmt.Sprint(own), func(t *testing.T) {
			region, mp := newRegion(t), mountPoint(t)
			want, mounted := own, make(chan result)
			go func() {
				// The thread ends with us. If it may have that niceness, so may a daemon.
				runtime.LockOSThread()
				if own == 0 && unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), niceness) == nil {
					want = niceness
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
				if p, err := unix.Getpriority(unix.PRIO_PROCESS, id); err == nil && 20-p != want {
					t.Errorf("thread %d of %d has niceness %d, want %d", id, len(tasks), 20-p, want)
				}
			}
		})
	}
}
