package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/fs/fusefs"
)

// mapFile makes a file of n bytes on a mount and maps it directly. The mapping ends with the test,
// or by end.
func mapFile(t *testing.T, name string, n int64, write bool) (m *direct.Mapping, end func()) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	d, err := direct.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	if m, err = d.Map(0, n, direct.MapOptions{Write: write}); err != nil {
		d.Close()
		t.Fatal(err)
	}
	d.Close()
	ended := false
	end = func() {
		if !ended {
			ended = true
			m.Close()
		}
	}
	t.Cleanup(end)
	return m, end
}

// self describes this process as a command's message does.
func self() string {
	_, command := processOf(os.Getpid())
	return fmt.Sprintf("process %d (%s) maps ", os.Getpid(), command)
}

// grantsOf returns the grants that `daxfsd leases --json` lists.
func grantsOf(t *testing.T, arg string) (all []map[string]any) {
	t.Helper()
	for _, g := range decode(t, must(t, "leases", "--json", arg))["grants"].([]any) {
		all = append(all, g.(map[string]any))
	}
	return all
}

// eventually waits until cond is true.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// TestLeasesOfMount checks what info, leases and top tell of programs that map files.
func TestLeasesOfMount(t *testing.T) {
	region, mp := mounted(t)
	if out := must(t, "leases", mp); !strings.Contains(out, "no program maps") {
		t.Errorf("without grants: %q", out)
	}
	read, _ := mapFile(t, mp+"/read", 64<<10, false)
	_, endWrite := mapFile(t, mp+"/to write", 2<<20, true)
	for _, arg := range []string{mp, region} {
		found := 0
		for _, g := range grantsOf(t, arg) {
			if g["state"] != "mapped" || g["pid"] != float64(os.Getpid()) || g["command"] == "" || g["uid"] != 0.0 || g["since"] == nil || g["id"] == nil {
				t.Errorf("%s: %v", arg, g)
			}
			pages := g["pages"].([]any)[0].(map[string]any)
			switch g["file"] {
			case mp + "/read":
				if g["mode"] == "ro" && g["bytes"] == 65536.0 && g["stale"] == false && pages["size"] == 4096.0 && pages["bytes"] == 65536.0 {
					found |= 1
				}
			case mp + "/to write":
				if g["mode"] == "rw" && g["bytes"] == float64(2<<20) {
					found |= 2
				}
			}
		}
		if found != 3 {
			t.Errorf("%s: both files are not in %v", arg, grantsOf(t, arg))
		}
	}
	l := decode(t, must(t, "leases", "--json", mp))
	has(t, l, map[string]any{"region": region, "mountpoint": mp, "leased_free_bytes": 0.0})
	if n := l["leased_bytes"].(float64); n < 2<<20+64<<10 {
		t.Errorf("leased_bytes is %v", n)
	}
	if p := l["processes"].([]any); len(p) != 1 || p[0].(map[string]any)["pid"] != float64(os.Getpid()) || p[0].(map[string]any)["writable"] != true {
		t.Errorf("processes: %v", p)
	}
	if err := os.Truncate(mp+"/read", 0); err != nil {
		t.Fatal(err)
	}
	if !read.Stale() {
		t.Error("a truncated file is not stale")
	}
	i := decode(t, must(t, "info", "--json", mp))
	if m := i["mount"].(map[string]any); m["leased_free_bytes"] != 65536.0 {
		t.Errorf("leased_free_bytes is %v", m["leased_free_bytes"])
	}
	if g := i["grants"].([]any); !slices.ContainsFunc(g, func(g any) bool { return g.(map[string]any)["stale"] == true }) {
		t.Errorf("no stale grant: %v", g)
	}
	for _, args := range [][]string{{"leases", mp}, {"info", mp}, {"top", "--once", "--interval", "50ms", mp}} {
		out := must(t, args...)
		for _, w := range []string{fmt.Sprint(os.Getpid()), "rw", "ro", "64 KiB", "2 MiB", "4 KiB", "mapped, stale", mp + "/to write"} {
			if !strings.Contains(out, w) {
				t.Errorf("%q is not in daxfsd %v:\n%s", w, args, out)
			}
		}
	}
	if i := decode(t, must(t, "top", "--json", "--count", "1", "--interval", "50ms", mp)); len(i["grants"].([]any)) < 2 {
		t.Errorf("top: %v", i["grants"])
	}
	endWrite()
	eventually(t, "the grant to write is gone", func() bool {
		return !slices.ContainsFunc(grantsOf(t, mp), func(g map[string]any) bool { return g["mode"] == "rw" })
	})
}

// TestLeasesOfRegion checks that commands name the programs that map a region which is not mounted,
// and that nothing that would give the memory to other files is done to it.
func TestLeasesOfRegion(t *testing.T) {
	region, mp := mounted(t)
	m, end := mapFile(t, mp+"/f", 1<<20, true)
	refused(t, daxfsd(t, "umount", mp), 1, "in use", "--lazy")
	r := daxfsd(t, "umount", "--force", mp)
	if r.code != 0 || !strings.Contains(r.stderr, "programs still map 1 MiB") || !strings.Contains(r.stderr, self()) {
		t.Fatalf("umount --force: exit code %d: %s", r.code, r.stderr)
	}
	l := decode(t, must(t, "leases", "--json", region))
	has(t, l, map[string]any{"region": region, "leased_bytes": float64(1 << 20), "locks": 1.0})
	if p := l["processes"].([]any); len(p) != 1 || p[0].(map[string]any)["pid"] != float64(os.Getpid()) {
		t.Errorf("processes: %v", p)
	}
	for _, c := range []string{"leases", "info"} {
		if out := must(t, c, region); !strings.Contains(out, "1 MiB") {
			t.Errorf("daxfsd %s: %s", c, out)
		}
	}
	before := digest(t, region)
	refused(t, daxfsd(t, "mkfs", region), 1, "still map 1 MiB", self(), "end them first")
	refused(t, daxfsd(t, "mkfs", "--force", region), 1, "still map 1 MiB", self(), "end them first")
	refused(t, daxfsd(t, "mkfs", "--force", "--takeover", "--size", "16MiB", region), 1, "still map 1 MiB", self())
	refused(t, daxfsd(t, "fsck", "-y", region), 8, "still map 1 MiB", self(), "mount it")
	if r := daxfsd(t, "fsck", "-n", region); r.code != 0 {
		t.Errorf("fsck -n: exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}
	if digest(t, region) != before {
		t.Error("the region has changed")
	}
	for _, options := range []string{"direct=off", "direct=ro", "atomic", "ro"} {
		r := daxfsd(t, "mount", "-o", options, region, mp)
		if r.code != 0 || !strings.Contains(r.stderr, "since a former mount") || !strings.Contains(r.stderr, self()) {
			t.Errorf("mount -o %s: exit code %d: %q", options, r.code, r.stderr)
		}
		if g := grantsOf(t, mp); options != "ro" && (len(g) != 1 || g[0]["state"] != "found" || g[0]["bytes"] != float64(1<<20) || g[0]["region_offset"] == nil) {
			t.Errorf("mount -o %s: grants %v", options, g)
		}
		r = daxfsd(t, "umount", mp)
		if r.code != 0 || !strings.Contains(r.stderr, "still map 1 MiB") || !strings.Contains(r.stderr, "next mount keeps") {
			t.Errorf("umount: exit code %d: %q", r.code, r.stderr)
		}
	}
	// A mount whose daemon is killed, and the log of one that is unmounted.
	copy(m.Bytes(), "still there")
	must(t, "mount", region, mp)
	if err := syscall.Kill(daemonPID(t, mp), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if r := daxfsd(t, "umount", mp); r.code != 0 || !strings.Contains(r.stderr, "still map 1 MiB") {
		t.Errorf("umount of a dead mount: exit code %d: %q", r.code, r.stderr)
	}
	log := filepath.Join(t.TempDir(), "log")
	must(t, "mount", "--log", log, region, mp)
	if r := daxfsd(t, "umount", mp); r.code != 0 || !strings.Contains(r.stderr, "still map") {
		t.Errorf("umount: exit code %d: %q", r.code, r.stderr)
	}
	if text := readFile(t, log); !strings.Contains(string(text), "programs map 1024 KiB of the region") {
		t.Errorf("the log of the unmount: %s", text)
	}
	end()
	if out := must(t, "leases", region); !strings.Contains(out, "no program maps") {
		t.Errorf("after the end: %s", out)
	}
	must(t, "fsck", "-y", region)
	must(t, "mkfs", "--force", region)
}

// TestFormatIfEmptyWhileMapped checks that a mount with --format-if-empty, as a unit of systemd
// makes it again after a crash, takes a filesystem that programs map, and does not format a region
// that they map and that is empty.
func TestFormatIfEmptyWhileMapped(t *testing.T) {
	region, mp := mounted(t)
	m, end := mapFile(t, mp+"/f", 64<<10, true)
	must(t, "umount", "--force", mp)
	must(t, "mount", "--format-if-empty", region, mp)
	copy(m.Bytes(), "kept")
	if b := readFile(t, mp+"/f"); string(b[:4]) != "kept" {
		t.Errorf("the file has %q", b[:4])
	}
	must(t, "umount", mp)
	if err := os.Truncate(region, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(region, 32<<20); err != nil {
		t.Fatal(err)
	}
	refused(t, daxfsd(t, "mount", "--format-if-empty", region, mp), 1, "still map 64 KiB", self())
	end()
	must(t, "mount", "--format-if-empty", region, mp)
	must(t, "umount", mp)
}

// TestNoDirect checks that a mount that cannot make grants says why, loudly only if it was told to
// make them.
func TestNoDirect(t *testing.T) {
	needFUSE(t)
	region, mp := newRegion(t), mountPoint(t)
	for _, c := range []struct {
		options, why string
		warns        bool
	}{
		{"ro", "the mount is read-only", false}, {"ro,direct=rw", "the mount is read-only", true}, {"ro,direct=off", "", false},
		{"dax=never", "the kernel caches files", false}, {"dax=never,direct=ro", "the kernel caches files", true},
	} {
		r := daxfsd(t, "mount", "-o", c.options, region, mp)
		if warns := strings.Contains(r.stderr, "cannot map files' own memory: "+c.why); r.code != 0 || warns != c.warns {
			t.Errorf("mount -o %s: exit code %d, %q", c.options, r.code, r.stderr)
		}
		m := decode(t, must(t, "info", "--json", mp))["mount"].(map[string]any)
		has(t, m, map[string]any{"direct": "off"})
		if why, _ := m["why_not_direct"].(string); (why == "") != (c.why == "") || !strings.HasPrefix(why, c.why) {
			t.Errorf("mount -o %s: why_not_direct is %q", c.options, why)
		}
		must(t, "mount", "-o", "remount,"+c.options, region, mp) // as mount(8) repeats what fstab says
		must(t, "umount", mp)
	}
	must(t, "mount", "-o", "atomic,direct=rw", region, mp)
	has(t, decode(t, must(t, "info", "--json", mp))["mount"].(map[string]any), map[string]any{"direct": "ro", "why_not_direct": nil})
	if out := must(t, "info", mp); !strings.Contains(out, "ro, because of the option atomic") {
		t.Errorf("info:\n%s", out)
	}
	must(t, "mount", "-o", "remount,atomic,direct=rw", region, mp)
	refused(t, daxfsd(t, "mount", "-o", "remount,direct=off", region, mp), 2, "direct=off", "mount it again")
	must(t, "umount", mp)
}

// TestLeasesOfManyGrants checks that a list that does not fit one answer of the daemon is complete,
// and short where it is not what was asked for.
func TestLeasesOfManyGrants(t *testing.T) {
	_, mp := mounted(t)
	writeFile(t, mp+"/f", make([]byte, 1<<20))
	f, err := os.Open(mp + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := direct.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const n = 300
	for i := range int64(n) {
		m, err := d.Map(i%256<<12, 4096, direct.MapOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
	}
	ids := map[any]bool{}
	for _, g := range grantsOf(t, mp) {
		ids[g["id"]] = true
	}
	if len(ids) < n {
		t.Errorf("%d grants, want %d", len(ids), n)
	}
	for _, args := range [][]string{{"info", mp}, {"top", "--once", "--interval", "50ms", mp}} {
		if out := must(t, args...); strings.Count(out, mp+"/f") > mostGrants || !strings.Contains(out, " more: `daxfsd leases "+mp+"`") {
			t.Errorf("daxfsd %v:\n%s", args, out)
		}
	}
}

// TestLeasesForUsers checks that a user who may neither open the region nor look into the processes
// of others is told the grants, by inode numbers.
func TestLeasesForUsers(t *testing.T) {
	needFUSE(t)
	const uid = 65534
	dir := userDir(t, uid)
	exe, region, mp := reachable(t, dir), newRegion(t), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mp, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fusefs.Unmount(mp, fusefs.Lazy) })
	must(t, "mount", region, mp)
	_, end := mapFile(t, mp+"/f", 64<<10, false)
	info, err := os.Stat(mp + "/f")
	if err != nil {
		t.Fatal(err)
	}
	ino := info.Sys().(*syscall.Stat_t).Ino
	r := asUserExe(t, exe, uid, "leases", mp)
	if r.code != 0 || !strings.Contains(r.stdout, fmt.Sprint("inode ", ino)) || !strings.Contains(r.stdout, fmt.Sprint(os.Getpid())) || strings.Contains(r.stdout, mp+"/f") {
		t.Errorf("leases: exit code %d: %s%s", r.code, r.stdout, r.stderr)
	}
	refused(t, asUserExe(t, exe, uid, "leases", region), 1, "no permission to open region")
	end()
	must(t, "umount", mp)
}
