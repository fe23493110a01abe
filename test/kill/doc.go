// Package kill kills daxfsd with SIGKILL, again and again, and requires that nothing
// is lost that a program was told had happened.
//
// A round, on a filesystem that ages with each of them:
//
//  1. Four processes work on the mount, one of them mostly with long writes. Each keeps
//     a log on another filesystem: what it asks for before the system call, and that
//     it returned after it.
//  2. The daemon is killed: at a random moment, or by the clock tick that finds it at
//     work after a while, which hits more calls half-way. fsck -n must find nothing that
//     recovery would not mend.
//  3. In one round of three the daemon is killed some more times while it mounts.
//  4. Mounted again, everything acknowledged is there: names, types, modes, link
//     counts, sizes, contents, symbolic links, attributes; and nothing else is. Of the
//     call that was under way, all is there or nothing; of its data each 8-byte word
//     is old or new, and the size covers only what was written.
//  5. In one round of three some more is done, and the daemon is killed while it
//     unmounts.
//  6. Unmounted, fsck -n finds nothing and counts as many files as there must be.
//
// In the end all is deleted, and no block stays in use.
//
// The workers, the model of what must be there and the judge are test/oracle's. What a worker does
// is chosen by -seed; when it is killed is, too, but the moment hits where it will.
//
//	go test ./test/kill -v -rounds 200 -seed 7 -keep /var/tmp/failed
//
// It owns nothing but its tests; what mounts and kills is test/harness.
package kill
