package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestTrace checks that there is one line for each request, with its arguments and its result.
func TestTrace(t *testing.T) {
	region := newRegion(t)
	refused(t, daxfsd(t, "mount", "-o", "trace", region, t.TempDir()), 2, "--log")
	needFUSE(t)
	mp, log := mountPoint(t), filepath.Join(t.TempDir(), "log")
	must(t, "mount", "-o", "trace", "--log", log, region, mp)
	name := filepath.Join(mp, "some-file")
	if err := os.WriteFile(name, make([]byte, 3000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(name+"/nothing", 0o700); err == nil {
		t.Fatal("a directory in a file")
	}
	if err := os.Rename(name, name+"2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(mp); err == nil {
		t.Fatal("removed a mount point")
	}
	if _, err := os.ReadFile(filepath.Join(mp, "absent")); err == nil {
		t.Fatal("read what is absent")
	}
	must(t, "umount", mp)
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{ // in any order: the next request may be answered before a line is written
		{"op": "CREATE", "nodeid": 1.0, "name": "some-file", "result": "ok"},
		{"op": "WRITE", "offset": 0.0, "size": 3000.0, "bytes": 3000.0, "result": "ok"},
		{"op": "RENAME", "name": "some-file", "new_name": "some-file2", "result": "ok"},
		{"op": "LOOKUP", "name": "absent", "result": "ok"}, // "ok": the answer is that it is absent
	}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		i := slices.IndexFunc(want, func(line map[string]any) bool {
			return got["msg"] == "request" && got["op"] == line["op"] && (line["name"] == nil || got["name"] == line["name"])
		})
		if i < 0 {
			continue
		}
		has(t, got, want[i])
		if micros, ok := got["us"].(float64); !ok || micros <= 0 || got["unique"] == nil || got["pid"] == 0.0 {
			t.Errorf("no time, or no number: %v", got)
		}
		want = slices.Delete(want, i, i+1)
	}
	if len(want) > 0 {
		t.Errorf("not in the trace: %v\n%s", want, text)
	}
}
