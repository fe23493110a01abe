package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFsckExitBits(t *testing.T) {
	clean := newRegion(t)
	before := digest(t, clean)
	r := daxfsd(t, "fsck", "-n", clean)
	if r.code != 0 || !strings.Contains(r.stdout, "clean") || r.stderr != "" {
		t.Errorf("clean: %+v", r)
	}
	if digest(t, clean) != before {
		t.Error("fsck -n changed the region")
	}
	bad := damage(t, func(b []byte) { b[200]++ })
	before = digest(t, bad)
	for _, args := range [][]string{{"fsck", "-n", bad}, {"fsck", bad}, {"fsck", "-n", "--json", bad}} {
		if r := daxfsd(t, args...); r.code != 4 || r.stderr != "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if digest(t, bad) != before {
		t.Error("fsck without -y changed the region")
	}
	m := decode(t, daxfsd(t, "fsck", "-n", "--json", bad).stdout)
	p := m["problems"].([]any)
	if len(p) != 1 || p[0].(map[string]any)["code"] != "super-primary" {
		t.Errorf("problems: %v", p)
	}
	if r := daxfsd(t, "fsck", "-y", bad); r.code != 1 || !strings.Contains(r.stdout, "fixed") {
		t.Errorf("repairing: %+v", r)
	}
	if r := daxfsd(t, "fsck", "-n", bad); r.code != 0 {
		t.Errorf("after repairing: %+v", r)
	}
}

func TestFsckOperational(t *testing.T) {
	refused(t, daxfsd(t, "fsck", "-n", filepath.Join(t.TempDir(), "absent")), 8, "does not exist")
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, make([]byte, 20<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, daxfsd(t, "fsck", "-y", junk), 8, "no daxfs")
}
