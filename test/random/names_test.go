package random

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestNames runs processes on one mount, each in a private subtree, which it models, and all in a
// shared one.
func TestNames(t *testing.T) {
	first := firstSeed(t)
	for i, mode := range modes(t) {
		each := *duration
		if i > 0 {
			each /= 4
		}
		t.Run(mode, func(t *testing.T) {
			p := newPlace(t, mode, 512<<20, 3*time.Minute+2*each)
			inhabit(t, p, mode, first, each)
		})
	}
}

// inhabit runs the processes and checks what they leave.
func inhabit(t *testing.T, area *place, mode string, first uint64, each time.Duration) {
	where := "-dax " + mode
	if area.Mount == nil {
		where = "-dir " + *onDir
	}
	again := fmt.Sprintf("again: go test ./test/random -count=1 -v -run TestNames %s -seed %d -duration %v -procs %d", where, first, each, *procs)
	pub := filepath.Join(area.dir, "shared")
	var before unix.Statfs_t
	if err := unix.Statfs(area.dir, &before); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(pub, 0o777); err != nil {
		t.Fatal(err)
	}
	if mode == "inode" { // files created in this directory inherit the flag, others lack it
		if err := setDAX(pub); err != nil {
			t.Fatal(err)
		}
	}
	logs := t.TempDir()
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), each+90*time.Second)
	defer cancel()
	cmds := make([]*exec.Cmd, *procs)
	outs := make([]strings.Builder, *procs)
	errs := make([]error, *procs)
	models := make([]string, *procs)
	start := time.Now()
	for proc := range cmds {
		models[proc] = filepath.Join(logs, strconv.Itoa(proc))
		cmds[proc] = harness.Child(ctx, "names", area.dir, mode, strconv.Itoa(proc), strconv.FormatUint(first, 10), each.String(), models[proc])
		cmds[proc].Stdout, cmds[proc].Stderr = &outs[proc], &outs[proc]
		if err := cmds[proc].Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if errs[proc] = cmds[proc].Wait(); errs[proc] != nil {
				cancel() // the test has failed already
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	for proc, err := range errs {
		if err != nil && !strings.Contains(err.Error(), "killed") {
			t.Errorf("process %d: %v: %s", proc, err, outs[proc].String())
		}
	}
	if ctx.Err() != nil {
		t.Fatalf("%v after %v; %s", ctx.Err(), took, again)
	}
	total := 0
	kinds := map[string]int{}
	for proc := range cmds {
		var n map[string]int
		if err := json.Unmarshal([]byte(outs[proc].String()), &n); err != nil {
			t.Fatalf("process %d printed %q, not its counts", proc, outs[proc].String())
		}
		for kind, count := range n {
			if kind == "longest ms" {
				kinds[kind] = max(kinds[kind], count)
				continue
			}
			kinds[kind] += count
			if !strings.Contains(kind, " ") {
				total += count
			}
		}
	}
	t.Logf("dax=%s: %d calls by %d processes in %.1f s, %.0f/s: %v", mode, total, *procs, took.Seconds(), float64(total)/took.Seconds(), kinds)
	for range 2 {
		trees(t, area, models, again)
		if n, err := sharedTree(pub); err != nil {
			t.Errorf("the shared tree: %v; %s", err, again)
		} else {
			t.Logf("%d names in the shared tree", n)
		}
		area.again()
	}
	trees(t, area, models, again)
	if t.Failed() {
		return
	}
	ents, err := os.ReadDir(area.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range ents {
		if err := os.RemoveAll(filepath.Join(area.dir, entry.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if area.Mount == nil {
		return // other programs use the filesystem, too
	}
	for range 2 {
		var after unix.Statfs_t
		// The kernel sends its FORGETs some time after the last use of an inode.
		for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			if err := unix.Statfs(area.dir, &after); err != nil {
				t.Fatal(err)
			}
			if after.Bfree == before.Bfree && after.Ffree == before.Ffree {
				break
			}
			if time.Since(start) > 10*time.Second {
				break
			}
		}
		if after.Bfree != before.Bfree || after.Ffree != before.Ffree || after.Files != before.Files {
			t.Errorf("with everything deleted %d blocks and %d of %d inodes are free, in the beginning %d and %d of %d; %s",
				after.Bfree, after.Ffree, after.Files, before.Bfree, before.Ffree, before.Files, again)
		}
		area.again()
	}
}

// trees compares every private subtree with its saved model.
func trees(t *testing.T, p *place, models []string, again string) {
	t.Helper()
	for w, name := range models {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tr := newTree()
		if err := json.Unmarshal(b, tr); err != nil {
			t.Fatal(err)
		}
		if err := tr.all(filepath.Join(p.dir, fmt.Sprintf("p%d", w))); err != nil {
			t.Errorf("process %d's tree: %v; %s", w, err, again)
		}
	}
}

// sharedTree checks the shared tree when no process changes it any more: contents, and the link
// count of every inode. It returns the number of names.
func sharedTree(pub string) (names int, err error) {
	links, want := map[uint64]int{}, map[uint64]int{}
	err = filepath.Walk(pub, func(name string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		names++
		var stat unix.Stat_t
		if err := unix.Lstat(name, &stat); err != nil {
			return err
		}
		links[stat.Ino] = int(stat.Nlink)
		want[stat.Ino]++
		switch stat.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			want[stat.Ino]++ // "."
			entries, err := os.ReadDir(name)
			if err != nil {
				return err
			}
			for _, entry := range entries {
				if entry.IsDir() {
					want[stat.Ino]++
				}
			}
		case unix.S_IFREG:
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			if err := checkRecord(content); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
	for ino, n := range links {
		if err == nil && want[ino] != n {
			err = fmt.Errorf("inode %d has %d links, want %d", ino, n, want[ino])
		}
	}
	return names, err
}

// names is the main function of one process. Arguments: directory, mode, number, seed, duration,
// file for its model.
func names(args []string) error {
	dir, mode := args[0], args[1]
	number, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	first, err := strconv.ParseUint(args[3], 10, 64)
	if err != nil {
		return err
	}
	each, err := time.ParseDuration(args[4])
	if err != nil {
		return err
	}
	unix.Umask(0)
	proc := &process{dice: newDice(first, uint64(number)+100), w: number, root: filepath.Join(dir, fmt.Sprintf("p%d", number)), pub: filepath.Join(dir, "shared"),
		whole: mode != "never", t: newTree(), count: map[string]int{}}
	if err := unix.Mkdir(proc.root, 0o755); err != nil {
		return err
	}
	for start := time.Now(); time.Since(start) < each; proc.n++ {
		where, step := "private", proc.private
		if proc.IntN(2) == 0 {
			where, step = "public", proc.public
		}
		begin := time.Now()
		if err := step(); err != nil {
			return fmt.Errorf("process %d, call %d, %s: %w", number, proc.n, proc.did, err)
		}
		if elapsed := int(time.Since(begin).Milliseconds()); elapsed > proc.count["longest ms"] {
			proc.count["longest ms"] = elapsed
		}
		kind, _, _ := strings.Cut(proc.did, " ")
		proc.count[where]++
		proc.count[where+" "+kind]++
		if proc.n%500 == 0 {
			if err := proc.t.all(proc.root); err != nil {
				return fmt.Errorf("process %d, after call %d, all: %w", number, proc.n, err)
			}
		}
	}
	if err := proc.t.all(proc.root); err != nil {
		return fmt.Errorf("process %d, in the end: %w", number, err)
	}
	for _, held := range proc.held {
		_ = unix.Close(held.fd)
	}
	model, err := json.Marshal(proc.t)
	if err != nil {
		return err
	}
	if err := os.WriteFile(args[5], model, 0o600); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(proc.count)
}
