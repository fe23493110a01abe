// Command daxfsd makes, mounts, checks and describes daxfsd filesystems.
//
// It owns what no package below it does: the command line, logging (zap), progress on a terminal,
// the daemon process, signals, and the messages that people read. Each command has a file and a
// test: mkfs.go, mount.go, umount.go, fsck.go, info.go, leases.go, top.go (its screen:
// toplive.go), filefrag.go, align.go.
//
// Files that several commands use:
//
//	size.go        byte counts of the command line
//	signature.go   recognises other filesystems and formats on a region
//	options.go     the options of mount -o
//	mounttable.go  mountinfo, and mounts whose daemon is gone
//	probe.go       requests to a daemon that may never answer
//	grants.go      what programs may map of a mounted filesystem
//	regionusers.go which processes map a region, and what they have locked of it
//	holder.go      which process has a region locked, and retries while it is leaving
//	region.go      opens a region, and explains why it cannot be opened
//	inherit.go     descriptors inherited from the caller
//	utab.go        the table by which umount(8) finds its helper
//	serve.go       the life of a daemon
//	crash.go       where the report of a crash goes
//	facts.go       what a daemon answers to info, leases and top
//	trace.go       -o trace
//	report.go      what a daemon reports to the command that started it
//	progress.go, log.go
//
// The journey of a mount: mountCommand checks its arguments, and spawn starts the same program in a
// session of its own. There serveMount opens the region, attaches the mount point (fusefs.Attach),
// mounts the core (fs.Mount), starts FUSE (Conn.Start), reports "ready", and serves until it is
// unmounted.
//
// Exit codes: 0 success; 1 failure, with one sentence on standard error; 2 wrong usage. The exit
// codes of fsck are those of fsck(8), see fsck.go. Scripts may rely on exit codes and on what
// --json prints; fields are only ever added.
package main
