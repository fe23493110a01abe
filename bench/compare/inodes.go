package main

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// million is the number of files in the large directory, and of cached inodes.
const million = 1_000_000

// inodes measures, with --full, the cost of a million cached inodes: memory, pauses, and further
// creates in the same directory.
func (m *measurement) inodes() error {
	big := m.rowsOf("ops/s", false, "bigdir/empty", "bigdir/million")
	rows := append(append(append([]*row{}, big...), m.rowsOf("B", true, "inodes/live", "inodes/memory")...), m.rowsOf("us", true, "inodes/pause")...)
	rows = append(rows, m.rowsOf("share", true, "inodes/left")...)
	if len(rows) == 0 {
		return nil
	}
	names := m.wanted("daxfsd-uring", "daxfsd-dev")
	if !m.conf.Full {
		for _, name := range names {
			unmeasured(rows, name, "needs --full")
		}
		return nil
	}
	for _, name := range names {
		err := m.try(0, "a million inodes", name, rows, func() error {
			return m.fresh(name, "inodes", 4<<30, func(t *contender) error { return m.inodesOn(t, rows) })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *measurement) inodesOn(t *contender, rows []*row) error {
	before, err := t.state(m.ctx)
	if err != nil {
		return err
	}
	memory, err := t.anonymous()
	if err != nil {
		return err
	}
	if _, err := createIn(filepath.Join(t.dir, "million"), numbered("file", million)); err != nil {
		return err
	}
	after, err := t.state(m.ctx)
	if err != nil {
		return err
	}
	grown, err := t.anonymous()
	if err != nil {
		return err
	}
	cached := float64(after.Mount.Runtime.CachedInodes) - float64(before.Mount.Runtime.CachedInodes)
	if cached < million*9/10 {
		return fmt.Errorf("only %.0f inodes are cached", cached)
	}
	// This includes the names, which stay, and garbage that is not collected yet.
	record(rows, "inodes/memory", t.name, (grown-memory)/cached)
	more := numbered("more", max(m.conf.Files/10, 100))
	for range m.conf.Rounds {
		for _, step := range []struct{ row, dir string }{{"bigdir/empty", "empty"}, {"bigdir/million", "million"}} {
			took, err := createIn(filepath.Join(t.dir, step.dir), more)
			if err != nil {
				return err
			}
			record(rows, step.row, t.name, float64(len(more))/took.Seconds())
			if err := deleteIn(filepath.Join(t.dir, step.dir), more); err != nil {
				return err
			}
			if err := m.ctx.Err(); err != nil {
				return err
			}
		}
	}
	after, err = t.state(m.ctx)
	if err != nil {
		return err
	}
	record(rows, "inodes/pause", t.name, float64(after.Mount.Runtime.GCPauseMax)/1e3)
	with, err := m.live(t)
	if err != nil {
		return err
	}
	// The kernel drops its cached inodes, and the daemon then frees its own.
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil {
		return err
	}
	time.Sleep(time.Second) // FORGET has no answer that could be awaited
	left, err := t.state(m.ctx)
	if err != nil {
		return err
	}
	record(rows, "inodes/left", t.name, float64(left.Mount.Runtime.CachedInodes)/cached)
	without, err := m.live(t)
	if err != nil {
		return err
	}
	record(rows, "inodes/live", t.name, (with-without)/cached)
	return nil
}

// live returns the bytes of the daemon's heap without garbage, as its next garbage collection finds
// them. Go's runtime starts a collection after at most two minutes.
func (m *measurement) live(t *contender) (float64, error) {
	before, err := t.state(m.ctx)
	if err != nil {
		return 0, err
	}
	for {
		select {
		case <-m.ctx.Done():
			return 0, m.ctx.Err()
		case <-time.After(time.Second):
		}
		now, err := t.state(m.ctx)
		if err != nil {
			return 0, err
		}
		if now.Mount.Runtime.GCCycles > before.Mount.Runtime.GCCycles {
			return float64(now.Mount.Runtime.LiveBytes), nil
		}
	}
}

// createIn creates files in a directory, and the directory if necessary. It returns how long the
// files took.
func createIn(dir string, names []string) (time.Duration, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	d, err := openDir(dir)
	if err != nil {
		return 0, err
	}
	defer unix.Close(d)
	start := time.Now()
	err = createAll(d, names)
	return time.Since(start), err
}

// deleteIn deletes files in a directory.
func deleteIn(dir string, names []string) error {
	d, err := openDir(dir)
	if err != nil {
		return err
	}
	defer unix.Close(d)
	return unlinkAll(d, names)
}
