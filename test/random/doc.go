// Package random does random things on a mount, knows what must come of them, and
// compares. What it does follows from -seed.
//
// TestFile, as fsx: two files of up to 4 MiB, or 64 MiB with each fifth seed. read, write
// and their vectors at any offset, O_DIRECT, O_APPEND, shared mappings, truncate, fallocate,
// holes, zero ranges, copy_file_range, SEEK_DATA and SEEK_HOLE, sync; through several
// handles, while names come and go, with none at all, and with a remount and fsck -n after
// each 2500 operations. A copy in memory says what each byte, size and number of links must
// be. A difference is reported with the last 30 operations and the command that shows
// it again.
//
// TestNames: processes that each make calls in a private subtree, of which they model
// everything (types, modes, owners, contents, links, attributes, the errno of each call), and
// in a shared one of few names, where an error must be one that others' calls explain and a
// content one that somebody wrote. In the end fsck -n, the models again after remounts,
// everything deleted, and as much is free as in the beginning. A seed repeats what each
// process asks for, not how they interleave.
//
//	go test ./test/random -v -seed 7 -ops 1000000 -seeds 50
//	go test ./test/random -v -run TestNames -duration 20m -timeout 30m
//	go test ./test/random -v -dir /var/tmp      # of another filesystem, as a control
//
// # What mappings see
//
// Found by experiment, Linux 6.18, both cache modes: a shared mapping and read(2),
// write(2), copy_file_range(2), fallocate(2), truncate(2) see each other's bytes at once,
// without msync, without a fault, with O_DIRECT or not. The kernel writes back before a
// direct read, a copy, a hole; it throws away what it has cached after a direct write. So
// TestFile never synchronises before a call that reads bytes (-msync makes it, to tell
// what it finds apart). And munmap(2) writes back.
//
// SEEK_DATA and SEEK_HOLE see it, too, because the daemon has the kernel write back before it
// answers (TestSeekMapped). st_blocks does not, before msync(2) or fsync(2), as on any
// filesystem that allocates late.
//
// What a mapping has beyond the end of file never becomes part of it (-pollute).
//
// It owns nothing but its tests; what mounts is test/harness. Regions are in memory unless
// TMPDIR says otherwise.
package random
