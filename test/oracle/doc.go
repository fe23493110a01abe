// Package oracle makes calls on a filesystem that are acknowledged one by one, and judges what
// is there of them after a crash.
//
// Its nouns: an Op is one system call; a Tree is what must be there of one worker's; Work is a
// worker, a process that chooses calls by a seed, and logs each before it is made and after
// it has returned; Replay applies a log to a tree; Judge compares it with the filesystem. Of the
// one call that was under way, all may be there or nothing; of its data each 8-byte word is old or
// new, and the size covers only what was written.
//
// A worker owns its directory and the names with its prefix in a shared one, so what must be
// there is known exactly.
//
// It mounts and kills nothing: that is for those who use it, test/kill and test/vm.
package oracle
