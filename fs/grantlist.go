package fs

import (
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/lease"
)

// Grants describes what programs may map: the grants, and what the mount found leased.
func (d *Direct) Grants() []lease.Info {
	if !d.any() {
		return nil
	}
	return d.leases.List()
}

// Leased returns how many bytes programs may map, and how many of these no file has: they become
// free when the programs end.
func (d *Direct) Leased() (all, free uint64) {
	t := d.fs.table
	return t.LeasedBlocks() << layout.BlockShift, t.LeasedDeferred() << layout.BlockShift
}
