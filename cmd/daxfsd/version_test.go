package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// TestVersion: both spellings say the same, one fact a line, and the first line says the release
// and the commit.
func TestVersion(t *testing.T) {
	a, b := must(t, "--version"), must(t, "version")
	if a != b {
		t.Errorf("--version prints %q, version prints %q", a, b)
	}
	want := fmt.Sprintf("\nformat version %d\nFUSE protocol %d.%d\n", layout.Version, fusefs.ProtocolMajor, fusefs.ProtocolMinor)
	first := regexp.MustCompile(`^daxfsd ` + regexp.QuoteMeta(release) + ` \(commit [^ ]+\)$`)
	if line, _, _ := strings.Cut(a, "\n"); !first.MatchString(line) || !strings.HasSuffix(a, want) {
		t.Errorf("--version prints %q; want the release, the commit, and %q", a, want)
	}
}

// TestChangelog: the newest version that CHANGELOG.md describes is this one.
func TestChangelog(t *testing.T) {
	log, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?m)^## (\S+)`).FindSubmatch(log); m == nil || string(m[1]) != release {
		t.Errorf("the first heading of CHANGELOG.md is %q; want %q, the release", m, release)
	}
}
