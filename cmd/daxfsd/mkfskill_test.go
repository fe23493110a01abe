package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/pmem"
)

// TestMkfsKilled kills mkfs --force at arbitrary moments, and just when the old filesystem is gone.
// What is left is the old filesystem, the new one, or something that every command refuses in one
// clear sentence. The file is not cut before the new filesystem is there, and mkfs can be repeated.
func TestMkfsKilled(t *testing.T) {
	t.Parallel()
	const before, after = 32 << 20, 20 << 20
	path := filepath.Join(t.TempDir(), "region.dax")
	size := func() int64 {
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	again := func() { must(t, "mkfs", "--force", "--sparse", "--size", "32MiB", "--label", "old", path) }
	again()
	first := func() string { // the first superblock
		data := make([]byte, 512)
		file, err := os.Open(path)
		if err == nil {
			_, err = file.Read(data)
			file.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	begin := time.Now()
	must(t, "mkfs", "--force", "--size", "20MiB", "--label", "new", path)
	usual := time.Since(begin)

	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	rounds := 60
	if testing.Short() {
		rounds = 12
	}
	left := map[string]int{}
	for i := 0; i < rounds && !t.Failed(); i++ {
		again()
		old := first()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		cmd := command(ctx, "mkfs", "--force", "--size", "20MiB", "--label", "new", path)
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		switch i % 3 {
		case 0:
			time.Sleep(time.Duration(rnd.Int64N(int64(usual))))
		case 1:
			for ctx.Err() == nil && first() == old {
			}
		case 2:
			for ctx.Err() == nil && first() == old {
			}
			time.Sleep(time.Duration(rnd.Int64N(int64(2 * time.Millisecond))))
		}
		cmd.Process.Kill() // it may have ended already
		cmd.Wait()
		if ctx.Err() != nil {
			t.Errorf("mkfs changes nothing; it said %q", said.String())
		}
		cancel()
		was := leftByMkfs(t, path)
		n := size()
		left[fmt.Sprintf("%s in %d MiB", was, n>>20)]++
		if n != before && n != after || was != "new" && n != before {
			t.Errorf("a region of %d bytes holds: %s", n, was)
		}
		if t.Failed() {
			t.Logf("round %d, seed %d", i, seed)
		}
	}
	t.Logf("left behind: %v, seed %d", left, seed)
	if left["no filesystem in 32 MiB"]+left["new in 32 MiB"] == 0 {
		t.Error("no kill came between the first store and the end: the test shows nothing")
	}
	again()
	if got := leftByMkfs(t, path); got != "old" {
		t.Errorf("after all that mkfs leaves: %s", got)
	}
}

// leftByMkfs returns the label of the filesystem that a killed mkfs left on a region, which must be
// complete. If there is none it returns "no filesystem", and the error must say that clearly.
func leftByMkfs(t *testing.T, path string) string {
	t.Helper()
	check := daxfsd(t, "fsck", "-n", path)
	// Between the writes of its two superblocks a filesystem is found by the second.
	if check.code == fsckClean || check.code == fsckLeft && strings.Contains(check.stdout, "the second is used") && strings.Contains(check.stdout, "1 problem would be repaired") {
		reg, err := pmem.Open(path, pmem.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer reg.Close()
		m, err := fs.Mount(reg, fs.Options{})
		if err != nil {
			t.Errorf("fsck finds nothing, mount: %v", err)
			return "unmountable"
		}
		defer m.Unmount()
		sb, _, err := fs.ReadSuper(reg)
		if err != nil {
			t.Fatal(err)
		}
		return sb.Label
	}
	refused(t, check, fsckOperational, path)
	info := daxfsd(t, "info", path)
	refused(t, info, 1, path)
	if s := strings.ToLower(check.stderr + info.stderr); strings.Contains(s, "panic") || strings.Contains(s, "goroutine") {
		t.Errorf("no clear sentence: %s", s)
	}
	return "no filesystem"
}
