package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProbeEnds checks that when a probe has answered, its descriptor on the mount is closed,
// whether the answer is a success or an error. Otherwise an umount after it would find the mount in
// use.
func TestProbeEnds(t *testing.T) {
	fd, err := unix.Open(t.TempDir(), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, c := range []struct {
		path string
		want error
	}{{probeFD, nil}, {filepath.Join(t.TempDir(), "missing"), os.ErrNotExist}} {
		p, err := startProbe(fd, "stat", c.path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.answer(probeLimit); !errors.Is(err, c.want) {
			t.Errorf("stat of %s: %v, expected %v", c.path, err, c.want)
		}
		if p.cmd.ProcessState == nil {
			t.Errorf("stat of %s: the probe has answered and not ended", c.path)
		}
	}
}
