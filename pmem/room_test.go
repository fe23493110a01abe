package pmem

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// lay writes files below a directory.
func lay(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMemoryRoom checks that a region in memory may take what the machine and all control groups of
// the process have left, in either version of their interface, and from within a container.
func TestMemoryRoom(t *testing.T) {
	const meminfo = "MemTotal:       32768000 kB\nMemFree:          100 kB\nMemAvailable:   16384000 kB\n"
	machine := int64(16384000-32768000/32) << 10
	for _, test := range []struct {
		name   string
		files  map[string]string // by path below the root; ROOT in the content is replaced by the root
		free   int64             // bytes
		wanted string
	}{
		{"no groups", nil, machine, "the machine's memory"},
		{"no meminfo", map[string]string{"proc/meminfo": ""}, math.MaxInt64, ""},
		{"v2", map[string]string{
			"proc/self/cgroup":        "0::/user/job\n",
			"proc/self/mountinfo":     "30 20 0:26 / ROOT/cg rw - cgroup2 cgroup2 rw\n",
			"cg/user/memory.max":      "max\n",
			"cg/user/memory.current":  "999999\n",
			"cg/user/job/memory.max":  "3200000\n",
			"cg/user/job/memory.stat": "anon 700000\ninactive_file 200000\nactive_file 100000\n", "cg/user/job/memory.current": "1000000\n",
		}, 3200000 - 100000 - 700000, "the memory of the control group ROOT/cg/user/job"},
		{"v2, a group above", map[string]string{
			"proc/self/cgroup":           "0::/user/job\n",
			"proc/self/mountinfo":        "30 20 0:26 / ROOT/cg rw - cgroup2 cgroup2 rw\n",
			"cg/user/memory.max":         "3200000\n",
			"cg/user/memory.current":     "3000000\n",
			"cg/user/job/memory.max":     "320000000\n",
			"cg/user/job/memory.current": "1000000\n",
		}, 100000, "the memory of the control group ROOT/cg/user"},
		{"v2, full", map[string]string{
			"proc/self/cgroup":    "0::/\n",
			"proc/self/mountinfo": "30 20 0:26 / ROOT/cg rw - cgroup2 cgroup2 rw\n",
			"cg/memory.max":       "3200000\n", "cg/memory.current": "3200000\n",
		}, 0, "the memory of the control group ROOT/cg"},
		{"v1 beside v2", map[string]string{
			"proc/self/cgroup":              "9:name=systemd:/\n4:cpu,memory:/box/run\n0::/\n",
			"proc/self/mountinfo":           "30 20 0:26 / ROOT/cpu rw - cgroup cgroup rw,cpuset\n31 20 0:27 / ROOT/mem rw shared:1 - cgroup cgroup rw,memory\n",
			"mem/memory.limit_in_bytes":     "9223372036854771712\n",
			"mem/memory.usage_in_bytes":     "5000000\n",
			"mem/box/run/memory.stat":       "inactive_file 1\ntotal_inactive_file 300000\n",
			"mem/box/memory.usage_in_bytes": "1\n", "mem/box/run/memory.limit_in_bytes": "6400000\n", "mem/box/run/memory.usage_in_bytes": "1300000\n",
		}, 6400000 - 200000 - 1000000, "the memory of the control group ROOT/mem/box/run"},
		{"container: the mount begins at the group", map[string]string{
			"proc/self/cgroup":    "0::/docker/abc\n",
			"proc/self/mountinfo": "30 20 0:26 /docker/abc ROOT/cg rw - cgroup2 cgroup2 rw\n",
			"cg/memory.max":       "3200000\n", "cg/memory.current": "0\n",
		}, 3100000, "the memory of the control group ROOT/cg"},
		{"container: the path is the host's", map[string]string{
			"proc/self/cgroup":    "0::/docker/abc\n",
			"proc/self/mountinfo": "30 20 0:26 /else ROOT/cg rw - cgroup2 cgroup2 rw\n",
			"cg/memory.max":       "3200000\n", "cg/memory.current": "0\n",
		}, 3100000, "the memory of the control group ROOT/cg"},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := t.TempDir()
			lay(t, root, map[string]string{"proc/meminfo": meminfo})
			for name, text := range test.files {
				lay(t, root, map[string]string{name: strings.ReplaceAll(text, "ROOT", root)})
			}
			room := RoomError{Free: math.MaxInt64}
			room.memory(filepath.Join(root, "proc"))
			if want := strings.ReplaceAll(test.wanted, "ROOT", root); room.Free != test.free || room.Where != want {
				t.Errorf("%d bytes of %q, want %d of %q", room.Free, room.Where, test.free, want)
			}
		})
	}
}

func TestHugePageRoom(t *testing.T) {
	root := t.TempDir()
	lay(t, root, map[string]string{
		"hugepages-2048kB/free_hugepages": "10\n", "hugepages-2048kB/resv_hugepages": "3\n",
		"hugepages-2048kB/nr_overcommit_hugepages": "4\n", "hugepages-2048kB/surplus_hugepages": "1\n",
	})
	e := RoomError{Free: math.MaxInt64}
	if e.hugePages(root, 2<<20); e.Free != 10*2<<20 {
		t.Errorf("%d bytes are free, want 10 pages", e.Free)
	}
	if e.hugePages(root, 1<<30); e.Free != 10*2<<20 {
		t.Error("pages of a size that the kernel has none of were counted")
	}
}

// TestFileLimit checks that a size beyond RLIMIT_FSIZE, at which the kernel would end the process,
// is refused.
func TestFileLimit(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 20, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_FSIZE, &old)
	for _, sparse := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "region")
		if err := Create(path, 2<<20, sparse); err == nil || !strings.Contains(err.Error(), "ulimit -f") {
			t.Errorf("error %v", err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("it was left behind")
		}
	}
}
