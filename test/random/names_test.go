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
func inhabit(t *testing.T, p *place, mode string, first uint64, each time.Duration) {
	where := "-dax " + mode
	if p.Mount == nil {
		where = "-dir " + *onDir
	}
	again := fmt.Sprintf("again: go test ./test/random -count=1 -v -run TestNames %s -seed %d -duration %v -procs %d", where, first, each, *procs)
	pub := filepath.Join(p.dir, "shared")
	var before unix.Statfs_t
	if err := unix.Statfs(p.dir, &before); err != nil {
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
	for w := range cmds {
		models[w] = filepath.Join(logs, strconv.Itoa(w))
		cmds[w] = harness.Child(ctx, "names", p.dir, mode, strconv.Itoa(w), strconv.FormatUint(first, 10), each.String(), models[w])
		cmds[w].Stdout, cmds[w].Stderr = &outs[w], &outs[w]
		if err := cmds[w].Start(); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if errs[w] = cmds[w].Wait(); errs[w] != nil {
				cancel() // the test has failed already
			}
		})
	}
	wg.Wait()
	took := time.Since(start)
	for w, err := range errs {
		if err != nil && !strings.Contains(err.Error(), "killed") {
			t.Errorf("process %d: %v: %s", w, err, outs[w].String())
		}
	}
	if ctx.Err() != nil {
		t.Fatalf("%v after %v; %s", ctx.Err(), took, again)
	}
	total := 0
	kinds := map[string]int{}
	for w := range cmds {
		var n map[string]int
		if err := json.Unmarshal([]byte(outs[w].String()), &n); err != nil {
			t.Fatalf("process %d printed %q, not its counts", w, outs[w].String())
		}
		for k, v := range n {
			if k == "longest ms" {
				kinds[k] = max(kinds[k], v)
				continue
			}
			kinds[k] += v
			if !strings.Contains(k, " ") {
				total += v
			}
		}
	}
	t.Logf("dax=%s: %d calls by %d processes in %.1f s, %.0f/s: %v", mode, total, *procs, took.Seconds(), float64(total)/took.Seconds(), kinds)
	for range 2 {
		trees(t, p, models, again)
		if n, err := sharedTree(pub); err != nil {
			t.Errorf("the shared tree: %v; %s", err, again)
		} else {
			t.Logf("%d names in the shared tree", n)
		}
		p.again()
	}
	trees(t, p, models, again)
	if t.Failed() {
		return
	}
	ents, err := os.ReadDir(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range ents {
		if err := os.RemoveAll(filepath.Join(p.dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	if p.Mount == nil {
		return // other programs use the filesystem, too
	}
	for range 2 {
		var after unix.Statfs_t
		// The kernel sends its FORGETs some time after the last use of an inode.
		for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			if err := unix.Statfs(p.dir, &after); err != nil {
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
		p.again()
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
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		links[st.Ino] = int(st.Nlink)
		want[st.Ino]++
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			want[st.Ino]++ // "."
			l, err := os.ReadDir(name)
			if err != nil {
				return err
			}
			for _, e := range l {
				if e.IsDir() {
					want[st.Ino]++
				}
			}
		case unix.S_IFREG:
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			if err := checkRecord(b); err != nil {
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
	w, err := strconv.Atoi(args[2])
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
	p := &process{dice: newDice(first, uint64(w)+100), w: w, root: filepath.Join(dir, fmt.Sprintf("p%d", w)), pub: filepath.Join(dir, "shared"),
		whole: mode != "never", t: newTree(), count: map[string]int{}}
	if err := unix.Mkdir(p.root, 0o755); err != nil {
		return err
	}
	for start := time.Now(); time.Since(start) < each; p.n++ {
		where, step := "private", p.private
		if p.IntN(2) == 0 {
			where, step = "public", p.public
		}
		begin := time.Now()
		if err := step(); err != nil {
			return fmt.Errorf("process %d, call %d, %s: %w", w, p.n, p.did, err)
		}
		if ms := int(time.Since(begin).Milliseconds()); ms > p.count["longest ms"] {
			p.count["longest ms"] = ms
		}
		kind, _, _ := strings.Cut(p.did, " ")
		p.count[where]++
		p.count[where+" "+kind]++
		if p.n%500 == 0 {
			if err := p.t.all(p.root); err != nil {
				return fmt.Errorf("process %d, after call %d, all: %w", w, p.n, err)
			}
		}
	}
	if err := p.t.all(p.root); err != nil {
		return fmt.Errorf("process %d, in the end: %w", w, err)
	}
	for _, h := range p.held {
		_ = unix.Close(h.fd)
	}
	b, err := json.Marshal(p.t)
	if err != nil {
		return err
	}
	if err := os.WriteFile(args[5], b, 0o600); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(p.count)
}
