// Command daxfsd makes, mounts, checks and describes daxfsd filesystems.
//
// It owns what the packages below never do: the command line, logging (zap),
// progress on a terminal, daemonising, signals, and the words that a person
// reads. One file per command, each with its test: mkfs.go, mount.go, umount.go,
// fsck.go, info.go, top.go (toplive.go is its screen), filefrag.go. What they share
// is in files named after it: size.go (byte counts), signature.go (what already
// lives on a region), options.go (-o), mounttable.go (mountinfo, stale mounts),
// probe.go (requests that may never be answered), holder.go (who has a region, and patience),
// inherit.go (the caller's descriptors), crash.go, utab.go (umount(8)), region.go (opening, and
// saying why not), serve.go (a daemon's life), facts.go (what it tells who asks), trace.go (-o
// trace), report.go (what a daemon tells the command that started it), progress.go, log.go.
//
// The journey of a mount: mountCommand checks its arguments, spawn starts the same
// program in a session of its own, and serveMount there opens the region, attaches
// the mount point (fusefs.Attach), mounts the core (fs.Mount), starts FUSE
// (Conn.Start), reports "ready" and serves until somebody unmounts.
//
// Exit codes: 0 done; 1 not done, with one sentence on standard error; 2 wrong
// usage. fsck has those of fsck(8), see there. Scripts may rely on exit codes and
// on what --json prints, whose fields are only ever added to.
package main
