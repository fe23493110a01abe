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
// These are chosen so that the longest part that is contiguous in file and region gets the largest
// pages; parts that lie elsewhere modulo a page size do not get pages of this size. The runs are in
// ascending order in the file, and may be adjacent.
func (s PageSizes) Of(runs []Run) []Pages {
	all := make([]Pages, len(runs))
	var longest Run
	eachPart(runs, func(part Run, _, _ int) {
		if part.Length > longest.Length {
			longest = part
		}
	})
	eachPart(runs, func(part Run, first, end int) {
		off := part.Region - part.File - (longest.Region - longest.File)
		lo := (part.Region + s.Largest - 1) / s.Largest * s.Largest
		hi := (part.Region + part.Length) / s.Largest * s.Largest
		for i := first; i < end; i++ {
			r, p := runs[i], &all[i]
			switch {
			case off%s.Granule != 0:
				p.None = r.Length
				continue
			case s.Largest > s.Granule && off%s.Largest == 0:
				if from, to := max(lo, r.Region), min(hi, r.Region+r.Length); from < to {
					p.Largest = to - from
				}
			}
			p.Granule = r.Length - p.Largest // pages of the granule also map what lies beside the run
		}
	})
	return all
}

// eachPart calls f for each part of a file that is contiguous in file and region, with the runs
// [first, end) that it consists of.
func eachPart(runs []Run, f func(part Run, first, end int)) {
	for first := 0; first < len(runs); {
		part, end := runs[first], first+1
		for ; end < len(runs) && runs[end].File == part.File+part.Length && runs[end].Region == part.Region+part.Length; end++ {
			part.Length += runs[end].Length
		}
		f(part, first, end)
		first = end
	}
}
