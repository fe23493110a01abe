package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestUdevRule checks that the udev rule gives nodes of device-dax to the group that the definition
// for sysusers.d makes, and nothing to others, and that `make install` installs both.
func TestUdevRule(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile("../../" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	rules := 0
	for line := range strings.Lines(read("deploy/70-daxfsd.rules")) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		rules++
		match, assign := map[string]string{}, map[string]string{}
		for _, part := range strings.Split(line, ",") {
			m := regexp.MustCompile(`^\s*([A-Z]+)(==|!=|=)"([^"]*)"\s*$`).FindStringSubmatch(part)
			if m == nil {
				t.Fatalf("%q is not a match or an assignment", part)
			}
			if m[2] == "=" {
				assign[m[1]] = m[3]
			} else {
				match[m[1]+m[2]] = m[3]
			}
		}
		if match["SUBSYSTEM=="] != "dax" || match["KERNEL=="] != "dax*" || match["ACTION!="] != "remove" {
			t.Errorf("the rule matches %v", match)
		}
		if len(assign) != 2 || assign["GROUP"] != "daxfsd" || assign["MODE"] != "0660" {
			t.Errorf("the rule assigns %v", assign)
		}
	}
	if rules != 1 {
		t.Errorf("%d rules, want 1", rules)
	}
	if !regexp.MustCompile(`(?m)^g daxfsd -$`).MatchString(read("deploy/daxfsd.sysusers")) {
		t.Error("deploy/daxfsd.sysusers does not make the group daxfsd")
	}
	for _, name := range []string{"deploy/70-daxfsd.rules", "deploy/daxfsd.sysusers"} {
		if !strings.Contains(read("Makefile"), "install -D -m 644 "+name) {
			t.Errorf("make install leaves out %s", name)
		}
	}
}
