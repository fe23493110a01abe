package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/fs/layout"
)

// mounted mounts a new region and returns it and its mount point.
func mounted(t *testing.T, args ...string) (region, mp string) {
	t.Helper()
	needFUSE(t)
	region, mp = newRegion(t), mountPoint(t)
	must(t, append(append([]string{"mount"}, args...), region, mp)...)
	return region, mp
}

func writeFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var content = bytes.Repeat([]byte("what was written is there\n"), 10000)

func TestMountUnmountMount(t *testing.T) {
	t.Parallel()
	region, mp := mounted(t)
	writeFile(t, mp+"/f", content)
	must(t, "umount", mp)
	if free, err := unlocked(region); !free {
		t.Errorf("umount returned and the region is not free: %v", err)
	}
	must(t, "fsck", "-n", region)
	has(t, decode(t, must(t, "info", "--json", region)), map[string]any{"state": "clean"})
	must(t, "mount", "-o", "ro", region, mp)
	if !bytes.Equal(readFile(t, mp+"/f"), content) {
		t.Error("the content changed")
	}
	if err := os.WriteFile(mp+"/g", nil, 0o644); err == nil {
		t.Error("wrote to a read-only mount")
	}
	before := digest(t, region)
	must(t, "umount", mp)
	if digest(t, region) != before {
		t.Error("a read-only mount changed the region")
	}
}

func TestKilledDaemon(t *testing.T) {
	t.Parallel()
	region, mp := mounted(t)
	writeFile(t, mp+"/f", content)
	pid := daemonPID(t, mp)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for i := 0; !stale(mp); i++ {
		if i == 1000 {
			t.Fatal("the mount point is not dead 10 s after its daemon")
		}
		time.Sleep(10 * time.Millisecond)
	}
	has(t, decode(t, must(t, "info", "--json", mp)), map[string]any{"state": "stale"})
	// The dead mount point is recognised, removed and reported.
	r := daxfsd(t, "mount", region, mp)
	if r.code != 0 || !strings.Contains(r.stderr, "removed the dead mount") {
		t.Fatalf("exit code %d: %s", r.code, r.stderr)
	}
	if !bytes.Equal(readFile(t, mp+"/f"), content) {
		t.Error("what had been written is not there")
	}
	must(t, "umount", mp)
	must(t, "fsck", "-n", region)

	// umount removes a dead mount as well.
	must(t, "mount", region, mp)
	if err := syscall.Kill(daemonPID(t, mp), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	must(t, "umount", mp)
	if m, _ := mountAt(mp); m != nil {
		t.Error("the dead mount is still there")
	}
	has(t, decode(t, must(t, "info", "--json", region)), map[string]any{"state": "dirty"})
	must(t, "fsck", "-n", region)
}

func TestForegroundEndsAtSIGTERM(t *testing.T) {
	needFUSE(t)
	region, mp := newRegion(t), mountPoint(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := command(ctx, "mount", "--foreground", region, mp)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		if _, err := askDaemon(mp, time.Second); err == nil {
			break
		}
		if i == 1000 {
			t.Fatal("not mounted after 10 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
	writeFile(t, mp+"/f", content)
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, log.String())
	}
	if m, _ := mountAt(mp); m != nil {
		t.Error("still mounted")
	}
	has(t, decode(t, must(t, "info", "--json", region)), map[string]any{"state": "clean"})
	for _, line := range strings.Split(strings.TrimSpace(log.String()), "\n") {
		if m := decode(t, line); m["level"] == nil || m["region"] != region { // JSON, because stderr is not a terminal
			t.Errorf("log line %q", line)
		}
	}
}

// TestSIGTERMWhileBusy checks that SIGTERM detaches a mount in use, and that the daemon ends with
// the last user.
func TestSIGTERMWhileBusy(t *testing.T) {
	t.Parallel()
	region, mp := mounted(t)
	f, err := os.Create(mp + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	refused(t, daxfsd(t, "umount", mp), 1, "in use", "--lazy")
	pid := daemonPID(t, mp)
	syscall.Kill(pid, syscall.SIGTERM)
	for i := 0; ; i++ {
		if m, _ := mountAt(mp); m == nil {
			break
		}
		if i == 1000 {
			t.Fatal("still in the tree after 10 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := f.Write(content); err != nil {
		t.Errorf("the last user is not served: %v", err)
	}
	if free, _ := unlocked(region); free {
		t.Error("the region is free while the mount is in use")
	}
	f.Close()
	if err := waitFree(region, pid, 10*time.Second); err != nil {
		t.Error(err)
	}
	must(t, "mount", region, mp)
	if !bytes.Equal(readFile(t, mp+"/f"), content) {
		t.Error("the content changed")
	}
	must(t, "umount", mp)
}

func TestUmountLazy(t *testing.T) {
	region, mp := mounted(t)
	f, err := os.Create(mp + "/f")
	if err != nil {
		t.Fatal(err)
	}
	must(t, "umount", "--lazy", mp)
	f.Close()
	if err := waitFree(region, 0, 10*time.Second); err != nil {
		t.Error(err)
	}
}

func TestFormatIfEmpty(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		size int64 // bytes; -1: absent
	}{{"absent", -1}, {"length zero", 0}, {"zeros", 20 << 20}} {
		t.Run(c.name, func(t *testing.T) {
			p, mp := filepath.Join(dir, c.name), mountPoint(t)
			if c.size >= 0 {
				writeFile(t, p, nil)
				if err := os.Truncate(p, c.size); err != nil {
					t.Fatal(err)
				}
			}
			args := []string{"mount", "--format-if-empty"}
			want := c.size
			if c.size <= 0 {
				args, want = append(args, "--size", "24MiB"), 24<<20
			}
			must(t, append(args, p, mp)...)
			writeFile(t, mp+"/f", content)
			must(t, "umount", mp)
			has(t, decode(t, must(t, "info", "--json", p)), map[string]any{"size": float64(want)})
			must(t, append(args, p, mp)...) // not empty any more
			if !bytes.Equal(readFile(t, mp+"/f"), content) {
				t.Error("a filesystem was formatted over")
			}
			must(t, "umount", mp)
		})
	}
	p := filepath.Join(dir, "junk")
	writeFile(t, p, append(make([]byte, 20<<20-1), 'x'))
	before := digest(t, p)
	refused(t, daxfsd(t, "mount", "--format-if-empty", p, mountPoint(t)), 1, "no daxfsd")
	if digest(t, p) != before {
		t.Error("the region was touched")
	}
}

// damage returns a copy of a formatted region that f has changed.
func damage(t *testing.T, f func(b []byte)) string {
	t.Helper()
	p := newRegion(t)
	b := readFile(t, p)
	f(b)
	writeFile(t, p, b)
	return p
}

// reseal recomputes a superblock's checksum.
func reseal(sb []byte) {
	binary.LittleEndian.PutUint32(sb[508:], layout.Checksum(0, sb[:508]))
}

// TestMountRefuses checks that what cannot be mounted is refused in one sentence, and stays as it
// was.
func TestMountRefuses(t *testing.T) {
	t.Parallel()
	good := newRegion(t)
	mp := mountPoint(t)
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, []byte("x"))
	last := 32<<20 - 4096
	for _, c := range []struct {
		name       string
		opts       []string
		region, mp string
		code       int
		words      []string
	}{
		{"wrong magic", nil, damage(t, func(b []byte) { clear(b) }), mp, 1, []string{"no daxfsd", "mkfs"}},
		{"another filesystem", nil, damage(t, func(b []byte) { clear(b); copy(b[0x438:], "\x53\xef") }), mp, 1, []string{"ext4"}},
		{"newer format", nil, damage(t, func(b []byte) {
			for _, super := range [][]byte{b, b[last:]} {
				binary.LittleEndian.PutUint64(super[32:], 1<<40)
				reseal(super)
			}
		}), mp, 1, []string{"newer"}},
		{"both superblocks damaged", nil, damage(t, func(b []byte) { b[200]++; b[last+200]++ }), mp, 1, []string{"both damaged", "checksum", "backup"}},
		{"truncated region", nil, func() string {
			path := newRegion(t)
			if err := os.Truncate(path, 20<<20); err != nil {
				t.Fatal(err)
			}
			return path
		}(), mp, 1, []string{"truncated", strconv.Itoa(32 << 20), strconv.Itoa(20 << 20)}},
		{"too small", nil, file, mp, 1, []string{"too small"}},
		{"length zero", nil, func() string {
			path := filepath.Join(t.TempDir(), "zero")
			writeFile(t, path, nil)
			return path
		}(), mp, 1, []string{"length zero", "mkfs"}},
		{"region missing", nil, filepath.Join(mp, "region"), mp, 1, []string{"does not exist", "mkfs"}},
		{"device missing", nil, "/dev/dax99.9", mp, 1, []string{"no device /dev/dax99.9"}},
		{"region is a directory", nil, filepath.Dir(mp), mp, 1, []string{"directory"}},
		{"mount point missing", nil, good, filepath.Join(mp, "absent"), 1, []string{"does not exist", "mkdir"}},
		{"mount point not a directory", nil, good, file, 1, []string{"not a directory"}},
		{"unknown option", []string{"-o", "ro,frobnicate"}, good, mp, 2, []string{"frobnicate", "dax=always", "takeover"}},
		{"size without format", []string{"--size", "1GiB"}, good, mp, 2, []string{"--format-if-empty"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before [32]byte
			st, err := os.Stat(c.region)
			regular := err == nil && st.Mode().IsRegular()
			if regular {
				before = digest(t, c.region)
			}
			got := daxfsd(t, append(append([]string{"mount"}, c.opts...), c.region, c.mp)...)
			refused(t, got, c.code, c.words...)
			if !strings.HasPrefix(got.stderr, "daxfsd: mount: ") {
				t.Errorf("stderr %q", got.stderr)
			}
			if regular && digest(t, c.region) != before {
				t.Error("the region was touched")
			}
			if mount, _ := mountAt(mp); mount != nil {
				t.Error("something is mounted")
			}
		})
	}
}

func TestMountRefusesSecondMount(t *testing.T) {
	region, mp := mounted(t)
	other := mountPoint(t)
	pid := strconv.Itoa(daemonPID(t, mp))
	refused(t, daxfsd(t, "mount", region, other), 1, "in use", mp, pid)
	refused(t, daxfsd(t, "mount", newRegion(t), mp), 1, "already", region)
	refused(t, daxfsd(t, "mkfs", "--force", region), 1, "in use", pid)
	refused(t, daxfsd(t, "fsck", "-y", region), 8, "in use", pid)
	refused(t, daxfsd(t, "umount", region), 1, mp)
	refused(t, daxfsd(t, "umount", other), 1, "not a mount point")
	refused(t, daxfsd(t, "umount", "/proc"), 1, "type proc")
	must(t, "umount", mp)
}

func TestMountFallsBackToSecondSuperblock(t *testing.T) {
	needFUSE(t)
	region, mp := damage(t, func(b []byte) { b[200]++ }), mountPoint(t)
	r := daxfsd(t, "mount", region, mp)
	if r.code != 0 || !strings.Contains(r.stderr, "second") {
		t.Errorf("exit code %d: %q", r.code, r.stderr)
	}
	must(t, "umount", mp)
	if i := decode(t, must(t, "info", "--json", region)); !strings.Contains(i["note"].(string), "second") {
		t.Errorf("info says %v", i["note"])
	}
	if r := daxfsd(t, "fsck", "-n", region); r.code != 4 {
		t.Errorf("fsck -n: exit code %d: %s", r.code, r.stdout)
	}
	if r := daxfsd(t, "fsck", "-y", region); r.code != 1 {
		t.Errorf("fsck -y: exit code %d: %s", r.code, r.stdout)
	}
	must(t, "fsck", "-n", region)
}

// TestUncleanHostStop checks that mount first checks an emulated region if the host went down while
// it was mounted.
func TestUncleanHostStop(t *testing.T) {
	t.Parallel()
	region, mp := mounted(t)
	writeFile(t, mp+"/f", content)
	if err := syscall.Kill(daemonPID(t, mp), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	must(t, "umount", mp)
	if decode(t, must(t, "info", "--json", region))["kind"] != "file" {
		t.Skip("the temporary directory is not on an ordinary filesystem")
	}
	// Another boot: change the owner record's boot id.
	image := readFile(t, region)
	super, err := layout.DecodeSuper(image[:layout.SuperSize], 0)
	if err != nil {
		t.Fatal(err)
	}
	var line layout.Line
	copy(line[:], image[super.OwnerOff:])
	var record layout.Owner
	record.Get(&line)
	record.Boot[0]++
	record.Put(&line)
	line.Seal(layout.Seed(super.UUID), super.OwnerOff, line.Seq())
	copy(image[super.OwnerOff:], line[:])
	copy(line[:], image[super.BeatOff():])
	var beat layout.Beat
	beat.Get(&line)
	beat.Interval = 20 // ms: the test does not wait for five seconds
	beat.Put(&line)
	line.Seal(layout.Seed(super.UUID), super.BeatOff(), line.Seq())
	copy(image[super.BeatOff():], line[:])
	damaged := bytes.Clone(image)
	writeFile(t, region, image)
	if i := decode(t, must(t, "info", "--json", region)); !strings.Contains(i["note"].(string), "host") {
		t.Errorf("info says %v", i["note"])
	}
	got := daxfsd(t, "mount", region, mp)
	if got.code != 0 || !strings.Contains(got.stderr, "checking") || !strings.Contains(got.stderr, "no damage") {
		t.Errorf("exit code %d: %q", got.code, got.stderr)
	}
	if !bytes.Equal(readFile(t, mp+"/f"), content) {
		t.Error("the content changed")
	}
	must(t, "umount", mp)

	damaged[super.StaticEnd+20]++ // the first chunk's header, which no journal record restores
	writeFile(t, region, damaged)
	before := digest(t, region)
	got = daxfsd(t, "mount", region, mp)
	if got.code != 1 || !strings.Contains(got.stderr, "fsck -y") {
		t.Errorf("a damaged one: exit code %d: %q", got.code, got.stderr)
	}
	if digest(t, region) != before {
		t.Error("the region was touched")
	}
}
