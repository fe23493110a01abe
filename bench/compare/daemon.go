package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// daemonState is the part of `daxfsd info --json` that is used.
type daemonState struct {
	Mount struct {
		Operations map[string]struct {
			Count uint64 `json:"count"`
		} `json:"operations"`
		Runtime *struct {
			Mallocs      uint64 `json:"mallocs"`
			GCCycles     uint64 `json:"gc_cycles"`
			GCPauseMax   uint64 `json:"gc_pause_max_ns"`
			LiveBytes    uint64 `json:"live_bytes"`
			CachedInodes uint64 `json:"cached_inodes"`
		} `json:"runtime"`
	} `json:"mount"`
}

// state asks the daemon of a daxfsd contender for its state.
func (t *contender) state(ctx context.Context) (*daemonState, error) {
	out, err := program(ctx, "", t.env.daxfsd, "info", "--json", t.dir)
	if err != nil {
		return nil, fmt.Errorf("%s: info: %w\n%s", t.name, err, out)
	}
	var s daemonState
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return nil, fmt.Errorf("%s: info: %w", t.name, err)
	}
	if s.Mount.Runtime == nil {
		return nil, fmt.Errorf("%s: info has no mount.runtime", t.name)
	}
	return &s, nil
}

// fewRequests is the number of requests below which the allocations for each request cannot be told
// from those for opening the files. With dax=never the kernel's cache answers most reads.
const fewRequests = 1000

// watch runs f, and records what the daemon allocated meanwhile for each READ and WRITE. Reporting
// its state makes the daemon allocate, too: watch measures that by asking twice, and subtracts the
// smallest value ever seen.
func (t *contender) watch(ctx context.Context, c *cell, f func() error) error {
	if !t.daxfsd() {
		return f()
	}
	first, err := t.state(ctx)
	if err != nil {
		return err
	}
	before, err := t.state(ctx)
	if err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	after, err := t.state(ctx)
	if err != nil {
		return err
	}
	count := func(s *daemonState) uint64 {
		return s.Mount.Operations["READ"].Count + s.Mount.Operations["WRITE"].Count
	}
	a, b := after.Mount.Runtime, before.Mount.Runtime
	if asking := float64(b.Mallocs - first.Mount.Runtime.Mallocs); t.asking == 0 || asking < t.asking {
		t.asking = asking
	}
	n := count(after) - count(before)
	c.add("requests", float64(n))
	if n >= fewRequests {
		// The cost of asking varies a little, so the difference may be negative.
		c.add("allocs_per_op", max(0, (float64(a.Mallocs)-float64(b.Mallocs)-t.asking)/float64(n)))
	}
	c.add("gc_cycles", float64(a.GCCycles-b.GCCycles))
	c.add("gc_pause_max_us", float64(a.GCPauseMax)/1e3)
	return nil
}

// anonymous returns the anonymous memory of a server in bytes: neither its region nor its program.
func (t *contender) anonymous() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", t.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(b)) {
		var kb int64
		if n, _ := fmt.Sscanf(l, "RssAnon: %d kB", &kb); n == 1 {
			return float64(kb << 10), nil
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no RssAnon", t.cmd.Process.Pid)
}
