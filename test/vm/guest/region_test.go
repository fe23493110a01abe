package guest

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestRegion runs the same checks on every kind of region.
func TestRegion(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			region, size := k.make(t)
			mkfs := []string{"mkfs", "--force", region} // the memory holds the filesystem of the last kind
			if strings.HasSuffix(region, "/region") {
				mkfs = []string{"mkfs", "--size", strconv.FormatInt(size, 10), region}
			}
			run(t, harness.Daxfsd, mkfs...)
			t.Setenv(harness.RegionEnv, region)
			t.Run("facts", func(t *testing.T) { k.facts(t, region, size) })
			t.Run("pages", func(t *testing.T) { k.pages(t, region) })
			for _, transport := range []string{"dev", "uring"} {
				t.Run(transport, func(t *testing.T) {
					t.Run("posix", func(t *testing.T) { posix(t, transport) })
					t.Run("load", func(t *testing.T) { load(t, transport) })
				})
			}
		})
	}
}

// facts checks the output of `daxfsd info --json` for a region and for a mount.
func (k *kind) facts(t *testing.T, region string, size int64) {
	type facts struct {
		Kind       string
		RegionSize int64 `json:"region_size"`
		Align      int64
		Durability string
		State      string
	}
	ask := func(of, state string) {
		t.Helper()
		var got facts
		out := run(t, harness.Daxfsd, "info", "--json", of)
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if want := (facts{k.kind, size, k.align, k.durability, state}); got != want {
			t.Errorf("info of %s: %+v, want %+v", of, got, want)
		}
	}
	ask(region, "clean")
	m := harness.NewWith(t, "transport=dev", 0, limit)
	ask(m.Mountpoint, "mounted")
	ask(region, "mounted")
}

// pages checks the size of the pages by which the daemon has mapped the region. For device-dax,
// smaps reports it. For files, smaps reports 4 kB in any case, so pages counts the faults of
// storing 64 MiB.
func (k *kind) pages(t *testing.T, region string) {
	mount := harness.NewWith(t, "transport=dev", 0, limit)
	file, err := os.Create(mount.Path("file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	buf := make([]byte, mib)
	write := func() {
		for range 64 {
			if _, err := file.Write(buf); err != nil {
				t.Fatal(err)
			}
		}
	}
	write() // faults of the daemon's own memory come with the first writes
	before := faults(t, mount.PID())
	write()
	n := faults(t, mount.PID()) - before
	most := 64*mib/k.page + 200 // plus some of the daemon's own; with pages of 4 KiB there would be 16384
	t.Logf("%d faults for 64 MiB, at most %d wanted", n, most)
	if n > most {
		t.Errorf("%d faults for 64 MiB: these are no pages of %d bytes", n, k.page)
	}
	if k.kind != "device-dax" {
		return
	}
	want, found := strconv.FormatInt(k.page/1024, 10)+" kB", 0
	smaps, err := os.ReadFile("/proc/" + strconv.Itoa(mount.PID()) + "/smaps")
	if err != nil {
		t.Fatal(err)
	}
	ours := false
	for line := range strings.Lines(string(smaps)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch {
		case strings.HasSuffix(key, " 00") || strings.Contains(key, "-") && !strings.HasSuffix(key, "Size"):
			ours = strings.HasSuffix(strings.TrimSpace(line), region)
		case ours && key == "KernelPageSize":
			found++
			if got := strings.TrimSpace(value); got != want {
				t.Errorf("a mapping of %s has pages of %s, want %s", region, got, want)
			}
		}
	}
	if found != 2 {
		t.Errorf("%d mappings of %s in smaps, want one to write and one to read", found, region)
	}
}

// faults returns the number of page faults of a process.
func faults(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	w := strings.Fields(rest)
	minor, err1 := strconv.ParseInt(w[7], 10, 64)
	major, err2 := strconv.ParseInt(w[9], 10, 64)
	if err1 != nil || err2 != nil {
		t.Fatalf("%s: %v, %v", b, err1, err2)
	}
	return minor + major
}

// posix runs the brief part of test/posix over a transport.
func posix(t *testing.T, transport string) {
	target := map[string]string{"dev": "dax=always", "uring": "transport=uring"}[transport]
	start := time.Now()
	out := harness.RunTests(t, limit, "posix.test", "-test.v", "-brief", "-slow", "10", "-test.run", "TestPosix/^"+target+"$")
	for line := range strings.Lines(out) {
		if strings.Contains(line, " cases: ") {
			t.Logf("%s in %.1f s", strings.TrimSpace(line), time.Since(start).Seconds())
			return
		}
	}
	t.Errorf("test/posix printed no count of cases:\n%s", out)
}
