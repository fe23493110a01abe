package attack

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

var long = flag.Bool("long", false, "attack for 20 s each, not for 0.7 s")

const (
	threads     = 40                    // threads of the attacker
	mayWait     = 50 * time.Millisecond // maximum wait of the victim for one create and unlink
	attempts    = 6                     // repeated measurements, since the machine may be busy with something else
	mayTake     = 256 << 20             // maximum bytes of the daemon's memory, without the region's pages
	attackerUID = 1000
	victimUID   = 2000
)

// attack is an expensive request that any user may make. All names are relative to the user's
// directory.
type attack struct {
	name    string
	prepare func(dir string) error        // called by root, once; may be nil
	ask     func(thread, round int) error // called by each thread, over and over
	within  time.Duration                 // maximum wait of the victim; 0: mayWait
	shared  bool                          // the victim's files are in the attacker's directory
}

// TestPlacesAreShared checks that no request of one user keeps another user's requests waiting.
func TestPlacesAreShared(t *testing.T) {
	for _, via := range []string{"dev", "uring"} {
		t.Run(via, func(t *testing.T) {
			if via == "uring" {
				harness.Uring(t)
			}
			m := harness.NewWith(t, "transport="+via, 1<<30, 10*time.Minute)
			for dir, uid := range map[string]int{"attacker": attackerUID, "victim": victimUID} {
				if err := os.Mkdir(m.Path(dir), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.Chown(m.Path(dir), uid, uid); err != nil {
					t.Fatal(err)
				}
			}
			fill(t, m.Path("resident"), 384<<20)
			for _, a := range slices.Concat(attacks, extentAttacks, grantAttacks) {
				t.Run(a.name, func(t *testing.T) { a.run(t, m) })
			}
			if kib := ownMemory(t, m.PID()); kib > mayTake>>10 {
				t.Errorf("the daemon has %d KiB of memory after all this, expected %d at most", kib, mayTake>>10)
			} else {
				t.Logf("the daemon has %d KiB of memory", kib)
			}
		})
	}
}

// ownMemory returns the anonymous resident memory of a process, in KiB.
func ownMemory(t *testing.T, pid int) (kib int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(b), "RssAnon:")
	if _, err := fmt.Sscan(line, &kib); err != nil {
		t.Fatalf("RssAnon of the daemon: %v", err)
	}
	return kib
}

// fill writes a file of size bytes, so that as much of the region is resident in the daemon.
func fill(t *testing.T, name string, size int) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1<<20)
	for i := range b {
		b[i] = byte(i)
	}
	for range size >> 20 {
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
	}
}

// run runs attacker and victim side by side.
func (a *attack) run(t *testing.T, mount *harness.Mount) {
	dir := mount.Path("attacker", a.name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir) // the next attack needs its space
	if a.prepare != nil {
		if err := a.prepare(dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := filepath.Walk(dir, func(name string, _ os.FileInfo, err error) error {
		if err == nil {
			err = os.Lchown(name, attackerUID, attackerUID)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	place := mount.Path("victim")
	if a.shared {
		place = dir
		for _, writable := range []string{dir, mount.Path("attacker")} {
			if err := os.Chmod(writable, 0o1777); err != nil {
				t.Fatal(err)
			}
		}
	}
	within := a.within
	if within == 0 {
		within = mayWait
	}
	last := 700 * time.Millisecond
	if *long {
		last = 20 * time.Second
	}
	for i := range attempts {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute+last)
		att := harness.Child(ctx, "attacker", dir, a.name)
		in, err := att.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var out, errs strings.Builder
		att.Stdout, att.Stderr = &out, &errs
		if err := att.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		text := harness.RunChild(t, time.Minute+last, "victim", place, last.String())
		in.Close()
		err = att.Wait()
		cancel()
		if err != nil {
			t.Fatalf("the attacker: %v: %s", err, errs.String())
		}
		var n, longest int64
		if _, err := fmt.Sscan(text, &n, &longest); err != nil {
			t.Fatalf("the victim said %q", text)
		}
		t.Logf("%s of the attacker; the victim created %d files, and waited for one %v at most", strings.TrimSpace(out.String()), n, time.Duration(longest).Round(time.Microsecond))
		if time.Duration(longest) <= within {
			return
		}
		if i == attempts-1 {
			t.Errorf("another user's create waited %v, expected %v at most", time.Duration(longest), within)
		}
	}
}

// become changes the process's directory to dir and its user to uid.
func become(dir string, uid int) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setgid(uid); err != nil {
		return err
	}
	return syscall.Setuid(uid)
}

// victim creates and unlinks files. It prints their number and the longest time for one, in ns.
func victim(args []string) error {
	last, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	// The highest priority: it shall not wait for a CPU.
	runtime.LockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20); err != nil {
		return err
	}
	if err := become(args[0], victimUID); err != nil {
		return err
	}
	n, longest := 0, time.Duration(0)
	for end := time.Now().Add(last); time.Now().Before(end); n++ {
		name := "victim" + strconv.Itoa(n)
		start := time.Now()
		fd, err := unix.Open(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		unix.Close(fd)
		if err := unix.Unlink(name); err != nil {
			return err
		}
		longest = max(longest, time.Since(start))
		time.Sleep(time.Millisecond)
	}
	fmt.Println(n, int64(longest))
	return nil
}

// attacker attacks until its standard input ends. It prints the number of requests that it made.
func attacker(args []string) error {
	attacks := slices.Concat(attacks, extentAttacks, grantAttacks)
	i := slices.IndexFunc(attacks, func(a attack) bool { return a.name == args[1] })
	if i < 0 {
		return fmt.Errorf("no attack is called %q", args[1])
	}
	a := &attacks[i]
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 19); err != nil {
		return err
	}
	if err := become(args[0], attackerUID); err != nil {
		return err
	}
	var over atomic.Bool
	var n atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for th := range threads {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19)
			for round := 0; !over.Load(); round++ {
				err := a.ask(th, round)
				if errors.Is(err, unix.EINTR) { // by a signal of Go's scheduler; nothing was done
					continue
				}
				if err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				n.Add(1)
			}
		}()
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	over.Store(true)
	wg.Wait()
	if e := failed.Load(); e != nil {
		return *e
	}
	fmt.Println(n.Load(), "requests")
	return nil
}
