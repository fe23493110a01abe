// Package format makes a filesystem on a region, and finds the superblock of one.
//
// # What it owns
//
// The geometry of a new filesystem, the first content of its fixed area, and the rules by which one
// of the two superblocks is believed. It never looks at who uses the region (fs/owner), and changes
// nothing but by Mkfs.
//
// Its functions keep no state. A caller of Mkfs has the region open exclusively; ReadSuper and
// CheckAlign may be called at any time.
package format
