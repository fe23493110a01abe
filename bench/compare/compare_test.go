package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/bench/jobs"
)

func report() *Report {
	r := &Report{Config: &config{Rounds: 3}}
	x := r.row("randread/psync/2", "ops/s", false)
	for contender, v := range map[string][]float64{
		"daxfsd-uring": {310, 290, 900}, "loopback": {100, 1, 200}, "null-uring": {300, 320}, "tmpfs": {620},
	} {
		for _, v := range v {
			x.cell(contender).add("ops/s", v)
		}
	}
	x.cell("daxfsd-uring").add("allocs_per_op", 0.5)
	x.cell("passthrough").Why = "not available here | at all\nmore"
	y := r.row("tree/rm", "s", true)
	y.cell("daxfsd-uring").add("s", 2)
	y.cell("tmpfs").add("s", 1)
	r.Targets = judge(r)
	return r
}

func TestMedianAndRatio(t *testing.T) {
	r := report()
	for _, c := range []struct {
		contender string
		want      float64
	}{{"daxfsd-uring", 310}, {"loopback", 100}, {"null-uring", 310}, {"tmpfs", 620}} {
		if v, ok := r.median("randread/psync/2", c.contender, "ops/s"); !ok || v != c.want {
			t.Errorf("median of %s is %v, %t, not %v", c.contender, v, ok, c.want)
		}
	}
	if _, ok := r.median("randread/psync/2", "ext4", "ops/s"); ok {
		t.Error("there is a median of no samples")
	}
	if v, ok := r.Rows[0].ratio("daxfsd-uring", "loopback"); !ok || v != 3.1 {
		t.Errorf("ratio is %v, %t, not 3.1", v, ok)
	}
	if v, ok := r.Rows[1].ratio("daxfsd-uring", "tmpfs"); !ok || v != 0.5 {
		t.Errorf("of seconds the ratio is %v, %t, not 0.5: less is better", v, ok)
	}
}

func TestTargets(t *testing.T) {
	want := map[string]string{
		"randread, 2 jobs, daxfsd-uring / loopback":                 met,
		"randread, 2 jobs, daxfsd-uring / null-uring":               met,
		"allocations for each request, randread, daxfsd-uring":      missed,
		"randread, 2 jobs, daxfsd-dev / loopback":                   unjudged,
		"random read, 100 000 extents / one, daxfsd-uring":          unjudged,
		"garbage collections meanwhile, randread, daxfsd-uring":     unjudged,
		"randwrite, 1 job, p50 of daxfsd-uring / p50 of null-uring": unjudged,
	}
	got := map[string]string{}
	for _, b := range report().Targets {
		if _, double := got[b.Name]; double {
			t.Errorf("two targets are called %q", b.Name)
		}
		got[b.Name] = b.Verdict
	}
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s: %q, not %q", name, got[name], v)
		}
	}
}

// A target for a row that is never measured could never be met.
func TestTargetsAreOfRows(t *testing.T) {
	rows := append([]string{"load/fairness", "extents/one", "extents/many", "bigdir/empty", "bigdir/million",
		"inodes/live", "inodes/memory", "inodes/pause", "inodes/left"}, append(directRows, treeRows...)...)
	for _, r := range metaRows {
		rows = append(rows, "meta/"+r)
	}
	for _, r := range fioRows() {
		rows = append(rows, r.String())
	}
	for _, b := range targets() {
		for _, f := range []figure{b.of, b.by} {
			if f != (figure{}) && (!slices.Contains(rows, f.row) || !slices.Contains(shownNames, f.contender)) {
				t.Errorf("%s: there is no row %s on %s", b.Name, f.row, f.contender)
			}
		}
	}
}

// There is a job file for every pattern.
func TestJobs(t *testing.T) {
	for _, r := range fioRows() {
		if _, err := jobs.Files.Open(r.pattern + ".fio"); err != nil {
			t.Error(err)
		}
	}
}

func TestPublish(t *testing.T) {
	dir := t.TempDir()
	o := &config{json: filepath.Join(dir, "r.json"), html: filepath.Join(dir, "r.html"), plots: filepath.Join(dir, "plots"), figure: filepath.Join(dir, "r.svg"), report: filepath.Join(dir, "r.md")}
	r := report()
	r.Errors = []string{"something <failed>"}
	if err := r.publish(o); err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	r.text(&text)
	for file, wants := range map[string][]string{
		o.json:   {`"daxfsd-uring"`, `900`},
		o.html:   {"data:image/png;base64,", "something &lt;failed&gt;", "3.10"},
		o.report: {`| daxfsd-uring | 310 |`, `not available here \| at all |`, "| missed |"},
		o.figure: {"random read, 2 jobs", ">3.10<", `width="511.5"`, "M691.5 83 V99"},
		filepath.Join(o.plots, "randread-psync-2.png"): {"\x89PNG"},
		"": {"3.10", "FAILED: something", "not available here | at all\n"},
	} {
		b := text.Bytes()
		if file != "" {
			var err error
			if b, err = os.ReadFile(file); err != nil {
				t.Fatal(err)
			}
		}
		for _, w := range wants {
			if !bytes.Contains(b, []byte(w)) {
				t.Errorf("%s does not hold %q", file, w)
			}
		}
	}
	if regexp.MustCompile(`(src|href)="(https?:)?//`).Match(must(os.ReadFile(o.html))(t)) {
		t.Error("the page loads something")
	}
}

func must(b []byte, err error) func(*testing.T) []byte {
	return func(t *testing.T) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// build builds the program, or skips the test if it cannot run here.
func build(t *testing.T) (binary string) {
	t.Helper()
	if testing.Short() {
		t.Skip("mounts, and runs for a minute")
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: bench/compare mounts and must run as root: try `sudo go test ./bench/compare`")
	}
	binary = filepath.Join(t.TempDir(), "compare")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// A quick run measures every kind of row on every contender, and leaves nothing behind.
func TestQuick(t *testing.T) {
	binary := build(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := t.TempDir()
	file := filepath.Join(dir, "r.json")
	cmd := exec.CommandContext(ctx, binary, "--quick", "--dir", dir, "--json", file, "--html", filepath.Join(dir, "r.html"))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var report Report
	if err := json.Unmarshal(must(os.ReadFile(file))(t), &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Rows) < 5+len(metaRows)+len(treeRows)+3+len(directRows) {
		t.Errorf("only %d rows", len(report.Rows))
	}
	for _, row := range report.Rows {
		contenders := metadataContenders
		switch {
		case strings.Contains(row.Name, "psync") || strings.Contains(row.Name, "mmap") || strings.Contains(row.Name, "io_uring"):
			contenders = contenderNames
		case strings.HasPrefix(row.Name, "extents/"):
			contenders = []string{"daxfsd-uring", "daxfsd-dev"}
		case strings.HasPrefix(row.Name, "direct/map"):
			contenders = []string{byClient}
		case row.Name == "direct/touch":
			contenders = []string{byClient, "daxfsd-uring", "daxfsd-dev", "tmpfs"}
		case strings.HasPrefix(row.Name, "direct/"):
			contenders = []string{byClient, byMemory, "daxfsd-uring", "daxfsd-dev", "tmpfs"}
		}
		for _, n := range contenders {
			cell := row.Cells[n]
			if cell == nil {
				t.Errorf("%s: nothing of %s", row.Name, n)
				continue
			}
			if median, ok := row.median(n, row.Metric); cell.Why == "" && (!ok || median <= 0) {
				t.Errorf("%s: %s is %v", row.Name, n, median)
			}
			may := strings.Contains(n, "uring") && report.Machine.Uring != "" || n == "passthrough" || n == "ext4" || row.Name == "meta/stat-cold" || cell.Why == keepsNothing
			if cell.Why != "" && !may {
				t.Errorf("%s: %s was not measured: %s", row.Name, n, cell.Why)
			}
		}
	}
	left(t, dir)
}

// An interrupted run leaves nothing behind.
func TestInterrupt(t *testing.T) {
	binary := build(t)
	dir := t.TempDir()
	c := exec.Command(binary, "--dir", dir, "--size", "4194304", "--rows", "^randread/psync")
	pipe, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(3*time.Minute, func() { _ = c.Process.Kill() })
	defer kill.Stop()
	var seen []byte
	for buf := make([]byte, 4096); ; {
		n, err := pipe.Read(buf)
		seen = append(seen, buf[:n]...)
		if err != nil {
			break
		}
		if bytes.Contains(seen, []byte("randread/psync/2")) && c.Process.Signal(syscall.SIGINT) != nil {
			break
		}
	}
	if err := c.Wait(); err == nil || !kill.Stop() {
		t.Fatalf("it ended with %v\n%s", err, seen)
	}
	left(t, dir)
}

// left checks that a run has left no files in dir and no processes.
func left(t *testing.T, dir string) {
	t.Helper()
	l, err := filepath.Glob(filepath.Join(dir, "daxfsd-compare-*"))
	if err != nil || len(l) > 0 {
		t.Errorf("left behind: %v, %v", l, err)
	}
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range all {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(dir)) {
			t.Errorf("still runs: %q", b)
		}
	}
}
