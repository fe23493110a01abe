package format_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/daxfsd/daxfsd/fs/format"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/pmem"
)

func region(t *testing.T, size int64) *pmem.Region {
	t.Helper()
	r, err := pmem.NewMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// TestSuperblocks checks that either superblock is enough, that ReadSuper reports which one it
// used, and that it fails without both.
func TestSuperblocks(t *testing.T) {
	r := region(t, format.MinSize)
	if _, _, err := format.ReadSuper(r); !errors.Is(err, layout.ErrMagic) {
		t.Errorf("empty region: %v", err)
	}
	made, err := format.Mkfs(r, format.Options{Label: "a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		spoil  int64 // region offset to overwrite; -1: none
		backup bool
		err    error
	}{{-1, false, nil}, {8, true, nil}, {made.BackupOff + 8, false, layout.ErrChecksum}} {
		if c.spoil >= 0 {
			if err := r.Store(c.spoil, []byte("8 bytes!")); err != nil {
				t.Fatal(err)
			}
		}
		s, backup, err := format.ReadSuper(r)
		if !errors.Is(err, c.err) || backup != c.backup || err == nil && *s != *made {
			t.Errorf("spoilt at %d: %+v, second one %v, %v", c.spoil, s, backup, err)
		}
	}
}

// TestMkfsAgain checks that the superblock of an older, larger filesystem is not found behind a
// new, smaller one.
func TestMkfsAgain(t *testing.T) {
	r := region(t, 2*format.MinSize)
	if _, err := format.Mkfs(r, format.Options{Label: "old"}); err != nil {
		t.Fatal(err)
	}
	if _, err := format.Mkfs(r, format.Options{Label: "new", Size: format.MinSize}); err != nil {
		t.Fatal(err)
	}
	if err := r.Store(8, []byte("8 bytes!")); err != nil {
		t.Fatal(err)
	}
	if s, _, err := format.ReadSuper(r); err == nil {
		t.Errorf("found %q", s.Label)
	}
}

// TestRefused checks the errors for options that Mkfs refuses, and that it then changes nothing.
func TestRefused(t *testing.T) {
	for want, o := range map[string]format.Options{
		"does not fit": {Size: 2 * format.MinSize},
		"too small":    {Size: 4096},
		"out of range": {Reserve: 51},
		"too long":     {Label: strings.Repeat("a", layout.LabelSize+1)},
		"not possible": {ChunkShift: 30, PUDShift: 21},
	} {
		r := region(t, format.MinSize)
		if _, err := format.Mkfs(r, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
		if _, _, err := format.ReadSuper(r); !errors.Is(err, layout.ErrMagic) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
