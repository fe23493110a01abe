package programs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// unrelated lists stressors of the class filesystem that do not use the directory they are given,
// so they do not test the filesystem.
var unrelated = map[string]string{
	"binderfs":   "mounts a binderfs of its own",
	"bind-mount": "mounts / on itself",
	"eventfd":    "no files",
	"ioprio":     "priorities of its own process",
	"procfs":     "reads /proc",
}

// additional lists stressors of other classes that do use the directory.
var additional = []string{"aio", "aiol", "io-uring", "mmap", "msync", "readahead", "revio", "seek", "sendfile", "splice"}

// bounds limits the space of stressors, so that the emulated region is small and the runs reach the
// ends of files.
var bounds = map[string][]string{
	"copy-file": {"--copy-file-bytes", "128M"},
	"fallocate": {"--fallocate-bytes", "64M"},
	"fiemap":    {"--fiemap-bytes", "16M"},
	"hdd":       {"--hdd-bytes", "64M"},
	"iomix":     {"--iomix-bytes", "64M"},
	"mmap":      {"--mmap-file", "--mmap-bytes", "16M"},
	"msync":     {"--msync-bytes", "16M"},
	"readahead": {"--readahead-bytes", "32M"},
	"revio":     {"--revio-bytes", "64M"},
	"seek":      {"--seek-size", "32M"},
	"sendfile":  {"--sendfile-size", "16M"},
	"sync-file": {"--sync-file-bytes", "32M"},
}

// less lists stressors that do less on the mount than on ext4, with the reason.
var less = map[string]string{
	"fiemap": "FUSE has no FS_IOC_FIEMAP; `daxfsd filefrag` tells",
}

// slow lists stressors that do not finish one operation in the given time, with the reason.
var slow = map[string]string{
	"xattr": "one operation sets 4096 attributes of one file, for which ext4 has no room; each call reads the whole list",
}

// A stressed is the result of one stressor on one filesystem.
type stressed struct {
	code    int // exit code of stress-ng
	skipped bool
	ops     int64
	left    int // files it did not delete
	took    time.Duration
	out     string
}

// ok reports whether the stressor ran and found no error. Some stressors pass without counting an
// operation.
func (s stressed) ok() bool { return s.code == 0 && !s.skipped }

func (s stressed) String() string {
	switch {
	case s.code == 124:
		return "did not end"
	case s.skipped:
		return "skipped"
	case s.code != 0:
		return fmt.Sprintf("FAILED (%d)", s.code)
	}
	return strconv.FormatInt(s.ops, 10)
}

// TestStress runs the stressors of stress-ng that use files, with verification, on the control and
// then on the mount, two at a time. Stressors that pass on the control must pass on the mount.
func TestStress(t *testing.T) {
	harness.Need(t, "stress-ng", "mkfs.ext4", "mount")
	mount := harness.New(t, 2<<30, choose(5*time.Minute, 25*time.Minute))
	ctl := newControl(t, mount, 2<<30)
	names := append(stressors(t), additional...)
	slices.Sort(names)
	type row struct{ control, mount stressed }
	rows := make([]row, len(names))
	seconds := choose(1, 5)
	var wg sync.WaitGroup
	next := make(chan int)
	for range 2 {
		wg.Go(func() {
			for i := range next {
				rows[i].control = stress(t, ctl.Dir, names[i], seconds)
				rows[i].mount = stress(t, mount.Mountpoint, names[i], seconds)
				if rows[i].control.ops > 0 && rows[i].mount.ok() && rows[i].mount.ops == 0 && slow[names[i]] == "" { // it has verified nothing yet
					rows[i].mount = stress(t, mount.Mountpoint, names[i], 5*seconds)
				}
			}
		})
	}
	for i := range names {
		next <- i
	}
	close(next)
	wg.Wait()
	var table strings.Builder
	passed := 0
	fmt.Fprintf(&table, "%-12s %12s %12s %7s  operations in %d s, or why none\n", "stressor", ctl.Kind, "daxfsd", "ratio", seconds)
	for i, res := range rows {
		name, ratio, note := names[i], "", ""
		switch {
		case !res.control.ok():
			note = "not on the control: " + firstComplaint(res.control.out)
		case res.mount.ok() && res.mount.left <= res.control.left:
			passed++
			ratio, note = "-", slow[name]
			if res.control.ops > 0 {
				ratio = fmt.Sprintf("%.2f", float64(res.mount.ops)/float64(res.control.ops))
				if res.mount.took > 2*res.control.took {
					note = fmt.Sprintf("in %v, the control in %v", res.mount.took, res.control.took)
				}
			}
		case res.mount.skipped && less[name] != "":
			note = less[name]
		default:
			note = "DIFFERS"
			t.Errorf("%s passes on %s; on the mount it exits with %d after %v (skipped: %v, operations: %d, files left: %d):\n%s",
				name, ctl.Kind, res.mount.code, res.mount.took, res.mount.skipped, res.mount.ops, res.mount.left, res.mount.out)
		}
		fmt.Fprintf(&table, "%-12s %12v %12v %7s  %s\n", name, res.control, res.mount, ratio, note)
	}
	t.Logf("%d of %d stressors pass on both\n%s", passed, len(names), table.String())
	empty(t, mount)
}

// stressors returns the names of stress-ng's class filesystem, without those of unrelated and
// additional.
func stressors(t *testing.T) (names []string) {
	out, _ := harness.Command(time.Minute, "", nil, "stress-ng", "--class", "filesystem?") // exits with 1 or 0
	_, list, ok := strings.Cut(out, "stressors:")
	if !ok {
		t.Fatalf("stress-ng does not list its class filesystem: %s", out)
	}
	for _, name := range strings.Fields(list) {
		if unrelated[name] == "" && !slices.Contains(additional, name) {
			names = append(names, name)
		}
	}
	if len(names) < 20 {
		t.Fatalf("stress-ng knows only %d stressors: %s", len(names), out)
	}
	return names
}

var (
	skippedLine = regexp.MustCompile(`skipping stress|skipped: [1-9]`)
	complaint   = regexp.MustCompile(`(?m)^stress-ng: (?:fail|error|info|warn|debug): +\[\d+\] (.*(?:fail|skip|not |error).*)$`)
)

// stress runs one stressor in a directory of its own below dir.
func stress(t *testing.T, dir, name string, seconds int) (s stressed) {
	dir = filepath.Join(dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Error(err)
		return s
	}
	args := append([]string{"--" + name, "1"}, bounds[name]...)
	args = append(args, "--verify", "--no-rand-seed", "--metrics-brief", "--timeout", strconv.Itoa(seconds), "--temp-path", dir)
	start := time.Now()
	// It ends late if one operation takes long; dirdeep deletes everything that it made.
	out, err := harness.Command(time.Duration(seconds)*time.Second+time.Minute, dir, nil, "stress-ng", args...)
	s = stressed{took: round(time.Since(start)), out: out, skipped: skippedLine.MatchString(out)}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		s.code = exit.ExitCode()
	case err != nil:
		s.code = 124 // as timeout(1)
	}
	metrics := regexp.MustCompile(`(?m)\] ` + regexp.QuoteMeta(name) + ` +(\d+) +[\d.]+`).FindStringSubmatch(out)
	if metrics != nil {
		s.ops, _ = strconv.ParseInt(metrics[1], 10, 64)
	}
	if entries, err := os.ReadDir(dir); err == nil {
		s.left = len(entries)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Errorf("deleting what %s left: %v", name, err)
	}
	return s
}

func firstComplaint(out string) string {
	if l := complaint.FindStringSubmatch(out); l != nil {
		return l[1]
	}
	return "no complaint"
}
