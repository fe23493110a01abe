package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daxfs/daxfs/fs/transport"
)

// TestPriority: all threads of a daemon have its niceness, unless it was started with one of its own, and its slice.
func TestPriority(t *testing.T) {
	needFUSE(t)
	for _, own := range []int{0, 5} {
		t.Run(fmt.Sprint(own), func(t *testing.T) {
			region, mp := newRegion(t), mountPoint(t)
			var before, want *unix.SchedAttr
			mounted := make(chan result)
			go func() {
				// The thread ends with us. What it may have here, so may a daemon.
				runtime.LockOSThread()
				before, _ = unix.SchedGetAttr(0, 0)
				before.Nice = int32(own)
				_ = unix.SchedSetAttr(0, before, 0)
				transport.PrioritizeThread(0)
				want, _ = unix.SchedGetAttr(0, 0)
				_ = unix.SchedSetAttr(0, before, 0)
				mounted <- daxfsd(t, "mount", region, mp)
			}()
			if r := <-mounted; r.code != 0 {
				t.Fatalf("%+v", r)
			}
			if own != 0 && want.Nice != int32(own) {
				t.Errorf("niceness %d, not the %d chosen", want.Nice, own)
			}
			if before.Runtime != 0 && want.Runtime > before.Runtime { // 0: not to be chosen
				t.Errorf("a slice of %d ns, it was %d", want.Runtime, before.Runtime)
			}
			tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", daemonPID(t, mp)))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range tasks {
				id, _ := strconv.Atoi(e.Name())
				if got, err := unix.SchedGetAttr(id, 0); err == nil && *got != *want {
					t.Errorf("thread %d of %d has %+v, want %+v", id, len(tasks), *got, *want)
				}
			}
		})
	}
}
