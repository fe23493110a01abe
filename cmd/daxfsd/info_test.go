package main

import (
	"strings"
	"testing"
)

// What scripts rely on.
func TestInfoJSON(t *testing.T) {
	region := newRegion(t)
	i := decode(t, must(t, "info", "--json", region))
	want := "align created durability format kind label promise region region_size size state uuid"
	if got := strings.Join(keys(i), " "); got != want {
		t.Errorf("fields of a region: %s, want %s", got, want)
	}
	needFUSE(t)
	mp := mountPoint(t)
	must(t, "mount", "-o", "noatime,atomic", region, mp)
	for _, arg := range []string{region, mp} {
		i := decode(t, must(t, "info", "--json", arg))
		has(t, i, map[string]any{"state": "mounted", "region": region})
		m := i["mount"].(map[string]any)
		has(t, m, map[string]any{"atomic_write_bytes": float64(1 << 20)})
		has(t, m, map[string]any{"mountpoint": mp, "pid": float64(daemonPID(t, mp)), "region": region})
		for _, f := range []string{"blocks", "free_blocks", "available_blocks", "inodes", "free_inodes", "options", "since", "version"} {
			if m[f] == nil {
				t.Errorf("no field %s in %v", f, keys(m))
			}
		}
	}
	must(t, "umount", mp)
}

func TestInfoForPeople(t *testing.T) {
	region := newRegion(t)
	out := must(t, "info", region)
	for _, w := range []string{region, "32 MiB", "clean", "durability", "survives"} {
		if !strings.Contains(out, w) {
			t.Errorf("%q is not in\n%s", w, out)
		}
	}
	needFUSE(t)
	mp := mountPoint(t)
	must(t, "mount", region, mp)
	out = must(t, "info", mp)
	for _, w := range []string{region, mp, "used", "free", "inodes", "process", "dax=always", "writes of up to 8 B"} {
		if !strings.Contains(out, w) {
			t.Errorf("%q is not in\n%s", w, out)
		}
	}
	must(t, "umount", mp)
}

func TestInfoRefuses(t *testing.T) {
	dir := t.TempDir()
	refused(t, daxfsd(t, "info", dir), 1, "directory")
	refused(t, daxfsd(t, "info", dir+"/absent"), 1, "does not exist")
	refused(t, daxfsd(t, "info", "/dev/null"), 1, "/dev/null")
}
