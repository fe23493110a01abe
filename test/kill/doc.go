// Package kill kills daxfsd with SIGKILL, again and again, and requires that every call that had
// returned is still there.
//
// A round, on a filesystem that ages from round to round:
//
//  1. Four processes work on the mount, one of them mostly with long writes. Each keeps a log on
//     another filesystem: each system call before it is made, and that it returned.
//  2. The daemon is killed: at a random moment, or by the clock tick that finds it running
//     after a while, which hits more calls half-way. fsck -n must find nothing that recovery
//     would not mend.
//  3. In one round of three the daemon is killed some more times while it mounts.
//  4. Mounted again, everything acknowledged is there: names, types, modes, link counts, sizes,
//     contents, symbolic links, extended attributes; and nothing else is. The call that was in
//     flight is there wholly or not at all; each 8-byte word of its data is old or new, and the
//     size covers only bytes that were written.
//  5. In one round of three more calls are made, and the daemon is killed while it unmounts.
//  6. After an unmount, fsck -n finds nothing and counts as many files as there must be.
//
// At the end everything is deleted, and no block stays in use.
//
// The workers, the model and the judge are those of test/oracle. The seed (-seed) determines the
// calls of the workers and when the daemon is killed, but not what it does at that moment.
//
//	go test ./test/kill -v -rounds 200 -seed 7 -keep /var/tmp/failed
//
// The package owns only its tests; test/harness mounts and kills.
package kill
