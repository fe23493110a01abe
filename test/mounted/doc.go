// Package mounted tests daxfsd from outside: it formats an emulated region, mounts
// it with the command itself, and lets programs that nobody here wrote work on it.
//
// It owns nothing but its tests. The test process never serves a mount, so a
// daemon that hangs cannot hang it for good: every external command has a
// deadline, and a watchdog aborts the connection of a mount that outlives its own.
// Nothing is skipped: a missing tool, missing rights or a missing /dev/fuse fails.
//
// Regions and logs live under $TMPDIR; a mount is taken away after its test,
// whatever happened. -short makes the directory of a million files a tenth as large.
package mounted
