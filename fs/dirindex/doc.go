// Package dirindex is a directory's index in DRAM: where the directory's blocks are, which of their
// lines are in use, and a hash table from names to lines. Names themselves stay on media.
//
// It never reads or stores media. To find a name it says which line it needs next, and the caller
// shows it that line (Search); so it takes no interface or function on the path of a lookup, which
// allocates nothing (TestSearchAllocs). The caller changes the media first and the index after
// that.
//
// A position is the number of a line in the directory. It never changes while the entry there
// lives, so it serves as the cookie of readdir(3).
//
// An Index has no lock: the caller's lock of the directory (inode.mu in fs) protects it, held for
// writing by methods that change it.
package dirindex
