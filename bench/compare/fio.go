package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/daxfsd/daxfsd/bench/jobs"
)

// fioRow is a row that fio measures, with jobs processes.
type fioRow struct {
	pattern, engine string
	jobs            int
}

func (r fioRow) String() string { return fmt.Sprintf("%s/%s/%d", r.pattern, r.engine, r.jobs) }

// metric returns the metric that the row shows: requests or bytes per second.
func (r fioRow) metric() string {
	if r.pattern == "seqread" || r.pattern == "seqwrite" {
		return "MiB/s"
	}
	return "ops/s"
}

// fioRows returns all fio rows.
func fioRows() (all []fioRow) {
	for _, engine := range []string{"psync", "io_uring", "mmap"} {
		for _, pattern := range []string{"randread", "randwrite", "mixed", "seqread", "seqwrite"} {
			for _, jobs := range []int{1, 2, 4} {
				all = append(all, fioRow{pattern, engine, jobs})
			}
		}
	}
	return all
}

// fioOutput is the part of fio's JSON that is used.
type fioOutput struct {
	Jobs []struct {
		Error       int `json:"error"`
		Read, Write fioSide
	} `json:"jobs"`
}

type fioSide struct {
	IOPS    float64 `json:"iops"`
	BW      float64 `json:"bw_bytes"`
	Total   int64   `json:"total_ios"`
	Latency struct {
		Percentile map[string]float64 `json:"percentile"`
	} `json:"clat_ns"`
}

// writeJobs writes the job files into dir.
func writeJobs(dir string) error { return os.CopyFS(dir, jobs.Files) }

// fio runs a job with the environment env. RUNTIME defaults to that of the configuration.
func (e *environment) fio(ctx context.Context, job string, env map[string]string) (*fioOutput, error) {
	// A fio that takes longer than this hangs.
	ctx, cancel := context.WithTimeout(ctx, 10*e.conf.Runtime+2*time.Minute)
	defer cancel()
	result := filepath.Join(e.dir, "fio.json")
	args := []string{"-C", e.dir, "RUNTIME=" + fmt.Sprintf("%dms", e.conf.Runtime.Milliseconds())}
	for k, v := range env {
		args = append(args, k+"="+v)
	}
	args = append(args, "fio", "--output-format=json", "--output="+result, filepath.Join(e.dir, "jobs", job+".fio"))
	out, err := program(ctx, "", "env", args...)
	if err != nil {
		return nil, fmt.Errorf("fio %s: %w\n%s", job, err, out)
	}
	b, err := os.ReadFile(result)
	if err != nil {
		return nil, err
	}
	var o fioOutput
	if err := json.Unmarshal(b, &o); err != nil {
		return nil, fmt.Errorf("fio %s: %w", job, err)
	}
	if len(o.Jobs) == 0 {
		return nil, fmt.Errorf("fio %s reported no job", job)
	}
	for _, j := range o.Jobs {
		if j.Error != 0 {
			return nil, fmt.Errorf("fio %s: error %d\n%s", job, j.Error, out)
		}
	}
	return &o, nil
}

// measure runs a row once on a contender.
func (r fioRow) measure(ctx context.Context, t *contender, c *cell) error {
	depth := 1
	if r.engine == "io_uring" {
		depth = 32
	}
	var o *fioOutput
	err := t.watch(ctx, c, func() (err error) {
		o, err = t.env.fio(ctx, r.pattern, map[string]string{
			"DIR": t.dir, "SIZE": fmt.Sprint(t.env.conf.Size), "ENGINE": r.engine,
			"DEPTH": fmt.Sprint(depth), "JOBS": fmt.Sprint(r.jobs), "RAMP": "0",
		})
		return err
	})
	if err != nil {
		return err
	}
	j := o.Jobs[0]
	if j.Read.Total+j.Write.Total == 0 {
		return fmt.Errorf("fio %s did nothing", r.pattern)
	}
	c.add("ops/s", j.Read.IOPS+j.Write.IOPS)
	c.add("MiB/s", (j.Read.BW+j.Write.BW)/(1<<20))
	side := j.Read
	if j.Read.Total == 0 {
		side = j.Write
	}
	c.add("p50_us", side.Latency.Percentile["50.000000"]/1e3)
	c.add("p99_us", side.Latency.Percentile["99.000000"]/1e3)
	return nil
}

// layout creates the data files, writes them completely and reads them once, so that the measured
// accesses are never the first to a page.
func (t *contender) layout() error {
	flags := os.O_RDWR
	if !t.null() {
		flags |= os.O_CREATE
	}
	buf := make([]byte, 1<<20)
	rnd := rand.NewChaCha8([32]byte{})
	for i := range dataFiles {
		f, err := os.OpenFile(filepath.Join(t.dir, fmt.Sprintf("data.%d", i)), flags, 0o644)
		if err != nil {
			return err
		}
		for off := int64(0); off < t.env.conf.Size && err == nil; off += int64(len(buf)) {
			rnd.Read(buf)
			_, err = f.WriteAt(buf[:min(int64(len(buf)), t.env.conf.Size-off)], off)
		}
		for off := int64(0); off < t.env.conf.Size && err == nil; off += int64(len(buf)) {
			if _, err = f.ReadAt(buf, off); errors.Is(err, io.EOF) {
				err = nil
			}
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
