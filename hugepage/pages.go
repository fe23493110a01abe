package hugepage

// Run is a part of a file that is contiguous in the region. All numbers are bytes.
type Run struct{ File, Region, Length uint64 }

// PageSizes says by which pages a device can be mapped, in bytes.
type PageSizes struct {
	Granule uint64 // offset and length of each mapping of the region are multiples of it
	Largest uint64 // the largest page size that the kernel uses for the region; at least Granule
}

// Pages is how many bytes of a run which pages can map. None is not zero if a contiguous mapping of
// the whole file cannot contain the run.
type Pages struct{ Largest, Granule, None uint64 }

// Of returns for each run which pages map it when the whole file is mapped at contiguous addresses.
// These are chosen so that the longest run gets the largest pages; runs that lie elsewhere modulo a
// page size do not get pages of this size.
func (s PageSizes) Of(runs []Run) []Pages {
	var longest Run
	for _, r := range runs {
		if r.Length > longest.Length {
			longest = r
		}
	}
	delta := longest.Region - longest.File
	all := make([]Pages, len(runs))
	for i, r := range runs {
		p, off := &all[i], r.Region-r.File-delta
		switch {
		case off%s.Granule != 0:
			p.None = r.Length
			continue
		case s.Largest <= s.Granule: // pages of the granule also map what lies beside the run
			p.Granule = r.Length
			continue
		}
		lo := (r.Region + s.Largest - 1) / s.Largest * s.Largest
		hi := (r.Region + r.Length) / s.Largest * s.Largest
		if off%s.Largest == 0 && lo < hi {
			p.Largest = hi - lo
		}
		p.Granule = r.Length - p.Largest
	}
	return all
}
