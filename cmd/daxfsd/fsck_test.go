package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

func TestFsckExitBits(t *testing.T) {
	t.Parallel()
	clean := newRegion(t)
	before := digest(t, clean)
	r := daxfsd(t, "fsck", "-n", clean)
	if r.code != 0 || !strings.Contains(r.stdout, "clean") || r.stderr != "" {
		t.Errorf("clean: %+v", r)
	}
	if digest(t, clean) != before {
		t.Error("fsck -n changed the region")
	}
	bad := damage(t, func(b []byte) { b[200]++ })
	before = digest(t, bad)
	for _, args := range [][]string{{"fsck", "-n", bad}, {"fsck", bad}, {"fsck", "-n", "--json", bad}} {
		if r := daxfsd(t, args...); r.code != 4 || r.stderr != "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if digest(t, bad) != before {
		t.Error("fsck without -y changed the region")
	}
	m := decode(t, daxfsd(t, "fsck", "-n", "--json", bad).stdout)
	p := m["problems"].([]any)
	if len(p) != 1 || p[0].(map[string]any)["code"] != "super-primary" {
		t.Errorf("problems: %v", p)
	}
	if r := daxfsd(t, "fsck", "-y", bad); r.code != 1 || !strings.Contains(r.stdout, "fixed") {
		t.Errorf("repairing: %+v", r)
	}
	if r := daxfsd(t, "fsck", "-n", bad); r.code != 0 {
		t.Errorf("after repairing: %+v", r)
	}
}

func TestFsckOperational(t *testing.T) {
	refused(t, daxfsd(t, "fsck", "-n", filepath.Join(t.TempDir(), "absent")), 8, "does not exist")
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, make([]byte, 20<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, daxfsd(t, "fsck", "-y", junk), 8, "no daxfsd")
}

func TestFsckUsage(t *testing.T) {
	for _, args := range [][]string{{"fsck"}, {"fsck", "-n", "-y", "x"}, {"fsck", "--what", "x"}, {"fsck", "x", "y"}} {
		if r := daxfsd(t, args...); r.code != 16 || r.stdout != "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	r := daxfsd(t, "fsck", "--help")
	for _, word := range []string{"-n", "-y", "--json", "0 clean", "1 errors corrected", "4 errors left", "8 operational", "16 wrong usage", "32 cancelled"} {
		if !strings.Contains(r.stdout, word) {
			t.Errorf("--help lacks %q: %s", word, r.stdout)
		}
	}
}

// TestFsckJSON checks that the report of problems and repairs is one object on stdout.
func TestFsckJSON(t *testing.T) {
	bad := damage(t, func(b []byte) { b[200]++ })
	r := daxfsd(t, "fsck", "-y", "--json", bad)
	m := decode(t, r.stdout)
	if r.code != 1 || r.stderr != "" || m["repaired"] != 1.0 || m["left"] != 0.0 || m["backup_superblock_used"] != true {
		t.Errorf("%+v", r)
	}
	p := m["problems"].([]any)[0].(map[string]any)
	if p["fixed"] != true || p["what"] == "" {
		t.Errorf("%v", p)
	}
}

// TestFsckCancelled checks that a signal ends a long check, here of a large filesystem.
func TestFsckCancelled(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "daxfsd-cancelled-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	large := filepath.Join(dir, "large")
	must(t, "mkfs", "--sparse", "--size", "8TiB", large)
	// The signal may come before its handler is installed, or after the end.
	for delay := 10 * time.Millisecond; delay < time.Second; delay += 10 * time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		cmd := command(ctx, "fsck", "-n", large)
		var said strings.Builder
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(delay)
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		cancel()
		if s := cmd.ProcessState; s.Exited() && s.ExitCode() != fsckClean {
			refused(t, result{s.ExitCode(), "", said.String()}, fsckCancelled, "cancelled", large)
			return
		}
	}
	t.Error("no check was cancelled")
}

// TestFsckDryRun checks that -n lists and counts what -y fixes, including problems that only the
// first fixes uncover.
func TestFsckDryRun(t *testing.T) {
	path := newRegion(t)
	region, err := pmem.Open(path, pmem.Options{})
	if err != nil {
		t.Fatal(err)
	}
	filesystem, err := fs.Mount(region, fs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	seed := layout.Seed(filesystem.Super().UUID)
	ctx := &fs.Caller{}
	var dir, attr fs.Attr
	if errno := filesystem.Mkdir(ctx, 1, "dir", 0o755, &dir); errno != 0 {
		t.Fatal(errno)
	}
	for _, name := range []string{"a", "b"} {
		if errno := filesystem.Mknod(ctx, dir.Ino, name, syscall.S_IFREG|0o644, 0, &attr); errno != 0 {
			t.Fatal(errno)
		}
	}
	if err := filesystem.Unmount(); err != nil {
		t.Fatal(err)
	}
	smashed := 0
	for off := int64(0); off < region.Size(); off += layout.LineSize {
		line := (*layout.Line)(region.Bytes(off, layout.LineSize))
		if line.Valid(seed, off) && line.DentryKind() == layout.DentryHead && (string(line.NamePart(0, 1)) == "a" && line.DentryNameLen() == 1 || string(line.NamePart(0, 3)) == "dir") {
			smashed++
			if err := region.Store(off+20, []byte{line[20] ^ 0x55}); err != nil {
				t.Fatal(err)
			}
		}
	}
	region.Close()
	if smashed != 2 {
		t.Fatalf("%d names were damaged, expected 2", smashed)
	}
	before := digest(t, path)
	dry := daxfsd(t, "fsck", "-n", path)
	if dry.code != fsckLeft || digest(t, path) != before || strings.Count(dry.stdout, "would be fixed") < 4 || strings.Contains(dry.stdout, "LEFT") {
		t.Errorf("-n: exit code %d, region changed: %v; it said\n%s", dry.code, digest(t, path) != before, dry.stdout)
	}
	if report := decode(t, daxfsd(t, "fsck", "-n", "--json", path).stdout); report["fixable"] != report["left"] || report["fixable"] != float64(strings.Count(dry.stdout, "would be fixed")) {
		t.Errorf("-n --json: %v fixable, %v left", report["fixable"], report["left"])
	}
	did := strings.NewReplacer("would be fixed", "fixed", "would be repaired", "repaired").Replace(dry.stdout)
	if repaired := daxfsd(t, "fsck", "-y", path); repaired.code != fsckCorrected || repaired.stdout != did {
		t.Errorf("-y: exit code %d; it said\n%sexpected\n%s", repaired.code, repaired.stdout, did)
	}
	if n := daxfsd(t, "fsck", "-n", path); n.code != fsckClean || strings.Count(n.stdout, "\n") != 1 {
		t.Errorf("-n after -y: exit code %d, %s", n.code, n.stdout)
	}
}
