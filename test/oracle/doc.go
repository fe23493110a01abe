// Package oracle makes system calls on a filesystem, logs which of them returned, and judges after
// a crash whether their effects are there.
//
// Its types: an Op is one system call. A Tree is the model of the files that one worker must have.
// Work is a worker, a process that chooses calls by a seed, and logs each call before it is made
// and after it has returned. Replay applies a log to a tree; Judge compares the tree with the
// filesystem. The one call that was in flight may be there wholly or not at all; each 8-byte word
// of its data is old or new, and the size covers only bytes that were written.
//
// A worker owns its directory, and the names with its prefix in a shared directory, so its tree is
// known exactly.
//
// The package mounts and kills nothing: its users, test/kill and test/vm, do.
package oracle
