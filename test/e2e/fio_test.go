package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestFio makes fio write and verify with checksums, through several I/O engines, and verify again
// after a remount.
func TestFio(t *testing.T) {
	harness.Need(t, "fio")
	m := harness.New(t, 1<<30, 6*time.Minute)
	const jobs = 4
	size := int64(16 << 20)
	if testing.Short() {
		size = 8 << 20
	}
	type work struct {
		engine, rw, bs string
		direct         bool
	}
	var all []work
	for _, e := range []string{"psync", "mmap", "libaio", "io_uring"} {
		direct := e == "libaio" || e == "io_uring" // libaio is synchronous without O_DIRECT
		all = append(all, work{e, "randwrite", "4k", direct}, work{e, "write", "128k", direct})
	}
	name := func(w work) string { return w.engine + "-" + w.rw }
	fio := func(t *testing.T, w work, verifyOnly bool) {
		args := []string{
			"--name=" + name(w), "--directory=" + m.Mountpoint, "--ioengine=" + w.engine, "--rw=" + w.rw, "--bs=" + w.bs, fmt.Sprintf("--size=%d", size),
			fmt.Sprintf("--numjobs=%d", jobs), "--thread", "--iodepth=8", "--fallocate=none", "--randrepeat=1",
			"--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--output-format=json",
		}
		if w.direct {
			args = append(args, "--direct=1")
		}
		if verifyOnly {
			args = append(args, "--verify_only")
		} else {
			args = append(args, "--do_verify=1")
		}
		out := harness.Run(t, 3*time.Minute, m.Dir, nil, "fio", args...)
		_, text, _ := strings.Cut(out, "{") // fio prints warnings before the JSON
		var res struct {
			Jobs []struct {
				Name  string `json:"jobname"`
				Error int
				Read  struct {
					Bytes int64 `json:"io_bytes"`
				}
				Write struct {
					Bytes int64 `json:"io_bytes"`
				}
			}
		}
		if err := json.NewDecoder(strings.NewReader("{" + text)).Decode(&res); err != nil {
			t.Fatalf("fio's answer: %v\n%s", err, out)
		}
		if len(res.Jobs) != jobs {
			t.Fatalf("%d jobs, want %d", len(res.Jobs), jobs)
		}
		for _, j := range res.Jobs {
			if j.Error != 0 || j.Read.Bytes != size || !verifyOnly && j.Write.Bytes != size {
				t.Errorf("job %s: error %d, %d bytes written and %d verified of %d\n%s", j.Name, j.Error, j.Write.Bytes, j.Read.Bytes, size, out)
			}
		}
	}
	for _, w := range all {
		t.Run("write/"+name(w), func(t *testing.T) { fio(t, w, false) })
	}
	if t.Failed() {
		return
	}
	m.Again()
	for _, w := range all {
		t.Run("remounted/"+name(w), func(t *testing.T) { fio(t, w, true) })
	}
}
