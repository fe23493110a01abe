// Package random makes random calls on a mount and compares the results with a model. -seed
// determines the calls.
//
// TestFile, like fsx, works on two files of up to 4 MiB (64 MiB with each fifth seed): read, write
// and their vector calls at any offset, O_DIRECT, O_APPEND, shared mappings, truncate, fallocate,
// holes, zero ranges, copy_file_range, SEEK_DATA and SEEK_HOLE, sync. It uses several handles,
// while names are linked, renamed and unlinked, and after the last unlink. After each 2500
// operations it remounts and runs fsck -n. A copy in memory holds the expected bytes, sizes and
// link counts. A difference is reported with the last 30 operations and the command that reproduces
// it.
//
// TestNames runs processes. Each makes calls in a private subtree, of which it models everything
// (types, modes, owners, contents, links, attributes, the errno of each call), and in a shared
// subtree of few names. There an error must be one that calls of other processes explain, and a
// content must be one that some process wrote. In the end fsck -n runs, the models are compared
// again after remounts, everything is deleted, and as many blocks must be free as in the beginning.
// A seed repeats the calls of each process, but not how they interleave.
//
//	go test ./test/random -v -seed 7 -ops 1000000 -seeds 50
//	go test ./test/random -v -run TestNames -duration 20m -timeout 30m
//	go test ./test/random -v -dir /var/tmp      # of another filesystem, as a control
//
// # What mappings see
//
// Found by experiment on Linux 6.18, in both cache modes: a shared mapping and read(2), write(2),
// copy_file_range(2), fallocate(2), truncate(2) see each other's bytes at once, without msync,
// without a fault, with and without O_DIRECT. The kernel writes back dirty pages before a direct
// read, a copy or a hole, and drops cached pages after a direct write. So TestFile never
// synchronises before a call that reads bytes; with -msync it does, which helps to find the cause
// of a difference. munmap(2) writes back, too.
//
// SEEK_DATA and SEEK_HOLE see the mapping's stores, too, because the daemon makes the kernel write
// back before it answers (TestSeekMapped). st_blocks counts them only after msync(2) or fsync(2),
// as on any filesystem with delayed allocation.
//
// Bytes that a mapping stores beyond the end of file never become part of the file (-pollute).
//
// The package owns only its tests; test/harness mounts. Regions are in memory unless TMPDIR is set.
package random
