// Package format makes a filesystem on a region, and finds the superblock of an existing one.
//
// # What it owns
//
// The package owns the geometry of a new filesystem, the first content of its fixed area, and the
// rules that decide which of the two superblocks is used. It never checks whether the region is in
// use (fs/owner does), and only Mkfs changes the region.
//
// Its functions keep no state. A caller of Mkfs has the region open exclusively. ReadSuper and
// CheckAlign may be called at any time.
package format
