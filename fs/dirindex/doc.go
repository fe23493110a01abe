// Package dirindex is a directory's index in DRAM: where the directory's blocks are, which of their
// lines are in use, and a hash table from names to lines. The names themselves stay on media.
//
// It never reads or stores media. A search for a name returns which line it needs next, and the
// caller loads that line and passes it on (Search). So the path of a lookup needs no interface or
// function value, and allocates nothing (TestSearchAllocs). The caller changes the media first and
// then the index.
//
// A position is the number of a line in the directory. The position of an entry never changes while
// the entry exists, so it serves as the cookie of readdir(3).
//
// An Index has no lock. The caller's lock of the directory (inode.mu in fs) protects it; methods
// that change the index need it held for writing.
package dirindex
