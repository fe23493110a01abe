package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/transport"
	"github.com/daxfsd/daxfsd/test/harness"
)

// operations returns the operations that the daemon has served, from `daxfsd info --json`.
func operations(t *testing.T, m *harness.Mount) transport.Stats {
	t.Helper()
	var i struct {
		Mount struct{ Operations transport.Stats }
	}
	out := harness.Run(t, time.Minute, "", nil, harness.Daxfsd, "info", "--json", m.Mountpoint)
	if err := json.Unmarshal([]byte(out), &i); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return i.Mount.Operations
}

// TestActivity checks that the operations of programs are counted exactly, whichever queue served
// them, and that daxfsd top shows them while they happen.
func TestActivity(t *testing.T) {
	t.Setenv(harness.OptionsEnv, "") // with a page cache, not every read reaches the daemon
	eachTransport(t, 256<<20, 2*time.Minute, func(t *testing.T, mount *harness.Mount) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		top := exec.CommandContext(ctx, harness.Daxfsd, "top", "--json", "--interval", "100ms", mount.Mountpoint)
		out, err := top.StdoutPipe()
		if err == nil {
			err = top.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = top.Process.Kill(); _ = top.Wait() }()
		shown, seconds := transport.Stats{}, 0.0
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		watch := func() {
			t.Helper()
			var i struct {
				Operations transport.Stats
				Seconds    float64
			}
			if !lines.Scan() {
				t.Fatalf("top ended: %v", lines.Err())
			}
			if err := json.Unmarshal(lines.Bytes(), &i); err != nil {
				t.Fatalf("%v in %s", err, lines.Bytes())
			}
			shown, seconds = shown.Plus(i.Operations), seconds+i.Seconds
		}
		watch()
		before := operations(t, mount)

		const clients, files, writes, reads = 8, 5, 40, 60
		var all sync.WaitGroup
		for client := range clients {
			all.Add(1)
			go func() {
				defer all.Done()
				must := func(what string, err error) {
					if err != nil {
						t.Errorf("%s: %v", what, err)
					}
				}
				dir := mount.Path(fmt.Sprint("dir", client))
				must("mkdir", unix.Mkdir(dir, 0o755))
				buf := make([]byte, 5000)
				for file := range files {
					name := fmt.Sprint(dir, "/", file)
					fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
					must("open", err)
					for nth := range writes {
						_, err := unix.Pwrite(fd, buf, int64(nth*len(buf)))
						must("pwrite", err)
					}
					for nth := range reads {
						n, err := unix.Pread(fd, buf[:1000], int64(nth*1000))
						must("pread", err)
						if n != 1000 {
							t.Errorf("read %d bytes", n)
						}
					}
					must("fallocate", unix.Fallocate(fd, 0, 1<<20, 4096))
					must("fsync", unix.Fsync(fd))
					must("close", unix.Close(fd))
					must("rename", unix.Rename(name, name+"x"))
				}
				if err := unix.Rmdir(dir); err != unix.ENOTEMPTY {
					t.Errorf("rmdir of a directory with files: %v", err)
				}
				must("symlink", unix.Symlink("nowhere", dir+"/link"))
				must("unlink", unix.Unlink(dir+"/0x"))
			}()
		}
		all.Wait()
		want := transport.Stats{
			"MKDIR": {Count: clients}, "CREATE": {Count: clients * files}, "FALLOCATE": {Count: clients * files}, "FSYNC": {Count: clients * files},
			"WRITE":  {Count: clients * files * writes, Bytes: clients * files * writes * 5000},
			"READ":   {Count: clients * files * reads, Bytes: clients * files * reads * 1000},
			"RENAME": {Count: clients * files}, "RMDIR": {Count: clients, Negative: clients}, "SYMLINK": {Count: clients}, "UNLINK": {Count: clients},
		}
		// differs returns how got differs from what is wanted. wait reports that got may still
		// become right.
		differs := func(got func(name string) transport.Operation) (what string, wait bool) {
			for name, wanted := range want {
				shownOp := got(name)
				if shownOp.Count != wanted.Count || shownOp.Errors != wanted.Errors || shownOp.Negative != wanted.Negative || shownOp.Bytes != wanted.Bytes {
					what += fmt.Sprintf("%s: %+v, want %+v\n", name, shownOp, wanted)
					wait = wait || shownOp.InFlight > 0 || shownOp.Count < wanted.Count
				}
			}
			return what, wait
		}
		// A client may have its answer before the queue has counted the request. The request then
		// still counts as in flight.
		for {
			now := operations(t, mount)
			what, wait := differs(func(name string) transport.Operation {
				n, old := now[name], before[name]
				n.Count, n.Errors, n.Negative, n.Bytes = n.Count-old.Count, n.Errors-old.Errors, n.Negative-old.Negative, n.Bytes-old.Bytes
				return n
			})
			if what == "" {
				break
			}
			if !wait || ctx.Err() != nil {
				t.Fatalf("info says of\n%s", what)
			}
		}
		if read := operations(t, mount)["READ"]; read.P50 == 0 || read.P50 > read.P90 || read.P90 > read.P99 || read.P99 > read.P999 || read.P999 > read.Max || read.Max > uint64(time.Minute) {
			t.Errorf("latencies of READ: %+v", read)
		}
		for what, wait := "?", true; what != ""; what, wait = differs(func(name string) transport.Operation { return shown[name] }) {
			if !wait {
				t.Fatalf("top says of\n%s", what)
			}
			watch()
		}
		watch() // and nothing more is counted
		if what, _ := differs(func(name string) transport.Operation { return shown[name] }); what != "" {
			t.Errorf("a little later top says of\n%s", what)
		}
		if seconds < .3 {
			t.Errorf("top's intervals are %v s together", seconds)
		}

		one := harness.Run(t, time.Minute, "", nil, harness.Daxfsd, "top", "--json", "--count", "1", "--interval", "200ms", mount.Mountpoint)
		var i struct {
			Transport  string
			Seconds    float64
			Operations map[string]struct {
				Count     uint64
				PerSecond float64 `json:"per_second"`
			}
		}
		if err := json.Unmarshal([]byte(one), &i); err != nil {
			t.Fatalf("%v in %s", err, one)
		}
		info := harness.Run(t, time.Minute, "", nil, harness.Daxfsd, "info", "--json", mount.Mountpoint)
		var told struct {
			Mount struct{ Options []string }
		}
		if err := json.Unmarshal([]byte(info), &told); err != nil {
			t.Fatal(err)
		}
		if getxattr := i.Operations["GETXATTR"]; !slices.Contains(told.Mount.Options, "transport="+i.Transport) || i.Seconds < .2 || getxattr.Count == 0 || getxattr.PerSecond <= 0 || i.Operations["READ"].Count != 0 {
			t.Errorf("an interval without requests: %s", one)
		}
	})
}
