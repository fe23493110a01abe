package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestUdevRule checks the rule for device nodes: each of its parts is well formed, it matches the
// nodes of device-dax and no others, and its group is the one that daxfsd.sysusers creates.
func TestUdevRule(t *testing.T) {
	rules, err := os.ReadFile("../../deploy/60-daxfsd.rules")
	if err != nil {
		t.Fatal(err)
	}
	sysusers, err := os.ReadFile("../../deploy/daxfsd.sysusers")
	if err != nil {
		t.Fatal(err)
	}
	part := regexp.MustCompile(`^([A-Z]+)(==|=)"([^"]+)"$`)
	lines := 0
	for line := range strings.Lines(string(rules)) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		lines++
		has := map[string]string{}
		for word := range strings.SplitSeq(line, ", ") {
			m := part.FindStringSubmatch(word)
			if m == nil {
				t.Fatalf("%q in rule %q is malformed", word, line)
			}
			has[m[1]+m[2]] = m[3]
		}
		if has["SUBSYSTEM=="] != "dax" || has["MODE="] != "0660" || len(has) != 4 {
			t.Errorf("rule %q has %v", line, has)
		}
		for name, want := range map[string]bool{"dax0.0": true, "dax12.3": true, "dax": false, "pmem0": false, "dax_region": false} {
			if got, err := filepath.Match(has["KERNEL=="], name); err != nil || got != want {
				t.Errorf("rule %q matches %s: %v, %v", line, name, got, err)
			}
		}
		if !regexp.MustCompile(`(?m)^g ` + has["GROUP="] + ` -$`).Match(sysusers) {
			t.Errorf("daxfsd.sysusers does not create the group %q:\n%s", has["GROUP="], sysusers)
		}
	}
	if lines != 1 {
		t.Errorf("%d rules", lines)
	}
}

// TestInstall checks that `make install` puts the files of deploy/ where udev, systemd-sysusers and
// systemd look for them.
func TestInstall(t *testing.T) {
	out, err := exec.Command("make", "-C", "../..", "-n", "install", "PREFIX=/usr", "DESTDIR=/stage").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, file := range []string{"/stage/usr/lib/udev/rules.d/60-daxfsd.rules", "/stage/usr/lib/sysusers.d/daxfsd.conf", "/stage/usr/lib/systemd/system/daxfsd@.service"} {
		if !strings.Contains(string(out), file) {
			t.Errorf("%s is not installed", file)
		}
	}
}
