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

// TestVersion checks that both spellings print the same, one fact a line, with the release and the
// commit in the first line.
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

// TestChangelog checks that the newest version in CHANGELOG.md is this one.
func TestChangelog(t *testing.T) {
	log, err := os.ReadFile("../../CHANGELOG.md")
	if err != nil {
		t.Fatal(err)
	}
	if m := regexp.MustCompile(`(?m)^## (\S+)`).FindSubmatch(log); m == nil || string(m[1]) != release {
		t.Errorf("the first heading of CHANGELOG.md is %q; want %q, the release", m, release)
	}
}
