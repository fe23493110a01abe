// Package harness formats, mounts, kills and takes away filesystems for the tests
// that look at daxfsd from outside: test/e2e, test/kill and others.
//
// It owns the mounts and all that belongs to them; it tests nothing itself. The test
// process never serves a mount, so a daemon that hangs cannot hang it for good:
// every external command has a deadline, and a watchdog aborts the connection of a
// mount that outlives its own. Nothing is skipped: a missing tool, missing rights or
// a missing /dev/fuse fails.
//
// A test binary runs as two processes (Main). The tests have a mount namespace of
// their own, so that nobody else sees their mounts. The other process waits for
// them; when they have ended, however they did, it kills the daemons they left,
// with which the namespace and all its mounts are gone, and deletes their files.
package harness
