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
	mount := harness.New(t, 1<<30, 6*time.Minute)
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
	for _, engine := range []string{"psync", "mmap", "libaio", "io_uring"} {
		direct := engine == "libaio" || engine == "io_uring" // libaio is synchronous without O_DIRECT
		all = append(all, work{engine, "randwrite", "4k", direct}, work{engine, "write", "128k", direct})
	}
	name := func(load work) string { return load.engine + "-" + load.rw }
	fio := func(t *testing.T, load work, verifyOnly bool) {
		args := []string{
			"--name=" + name(load), "--directory=" + mount.Mountpoint, "--ioengine=" + load.engine, "--rw=" + load.rw, "--bs=" + load.bs, fmt.Sprintf("--size=%d", size),
			fmt.Sprintf("--numjobs=%d", jobs), "--thread", "--iodepth=8", "--fallocate=none", "--randrepeat=1",
			"--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--output-format=json",
		}
		if load.direct {
			args = append(args, "--direct=1")
		}
		if verifyOnly {
			args = append(args, "--verify_only")
		} else {
			args = append(args, "--do_verify=1")
		}
		out := harness.Run(t, 3*time.Minute, mount.Dir, nil, "fio", args...)
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
		for _, job := range res.Jobs {
			if job.Error != 0 || job.Read.Bytes != size || !verifyOnly && job.Write.Bytes != size {
				t.Errorf("job %s: error %d, %d bytes written and %d verified of %d\n%s", job.Name, job.Error, job.Write.Bytes, job.Read.Bytes, size, out)
			}
		}
	}
	for _, load := range all {
		t.Run("write/"+name(load), func(t *testing.T) { fio(t, load, false) })
	}
	if t.Failed() {
		return
	}
	mount.Again()
	for _, load := range all {
		t.Run("remounted/"+name(load), func(t *testing.T) { fio(t, load, true) })
	}
}
