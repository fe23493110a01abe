// Package harness formats, mounts, kills and destroys filesystems for the tests that look at daxfsd
// from outside: test/e2e, test/kill and others.
//
// It owns the mounts with their regions, logs and daemons. It tests nothing itself. The test
// process never serves a mount, so a daemon that hangs cannot hang the test forever: every external
// command has a deadline, and a watchdog aborts the connection of a mount that outlives its own. A
// missing tool, missing rights or a missing /dev/fuse fails the test; it is not skipped.
//
// A test binary runs as two processes (Main). The tests run in a mount namespace of their own, so
// that no other process sees their mounts. The other process waits until they have ended, in
// whatever way. Then it kills the daemons that are left, which removes the namespace and all its
// mounts, and deletes their files.
package harness
