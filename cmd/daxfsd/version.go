package main

import (
	"fmt"
	"runtime/debug"

	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/fs/layout"
)

// release is the version of the program, by semantic versioning. CHANGELOG.md begins with it.
const release = "0.1.0"

// commit is set by the build: -ldflags "-X main.commit=1f3870be2741".
var commit = ""

// commitString returns the commit that the program was built from, "unknown" if neither the
// Makefile nor the Go command recorded one.
func commitString() string {
	if commit != "" {
		return commit
	}
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	id, dirty := "unknown", ""
	for _, s := range b.Settings {
		switch {
		case s.Key == "vcs.revision":
			id = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	return id + dirty
}

// versionString returns release and commit in one line, for logs and info.
func versionString() string { return fmt.Sprintf("%s (commit %s)", release, commitString()) }

// versionReport returns what `daxfsd --version` prints: the program, the on-media format that it
// writes, and the protocols that it speaks.
func versionReport() string {
	return fmt.Sprintf("daxfsd %s\nformat version %d\nFUSE protocol %d.%d\n",
		versionString(), layout.Version, fusefs.ProtocolMajor, fusefs.ProtocolMinor)
}
