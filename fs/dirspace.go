package fs

import "slices"

// relist lists a directory block in avail if it has free lines, and takes it off the list if it
// is full or a hole. No block is listed twice, so the list never outgrows the directory.
func (d *dirIndex) relist(b uint32) {
	has := d.blocks[b] != 0 && d.used[b] != ^uint64(0)
	switch i := d.listed[b]; {
	case has && i == 0:
		d.avail = append(d.avail, b)
		d.listed[b] = uint32(len(d.avail))
	case !has && i != 0:
		last := d.avail[len(d.avail)-1]
		d.avail[i-1] = last
		d.listed[last] = i
		d.avail = d.avail[:len(d.avail)-1]
		d.listed[b] = 0
	}
}

// shrink cuts the directory blocks from n on off, which are holes. A directory that has shrunk to
// a quarter gives the memory back.
func (d *dirIndex) shrink(n int) {
	d.blocks, d.used, d.listed = fit(d.blocks[:n]), fit(d.used[:n]), fit(d.listed[:n])
	d.holes = fit(slices.DeleteFunc(d.holes, func(b uint32) bool { return b >= uint32(n) }))
	d.avail = fit(d.avail)
}

// fit moves s to memory of its own size if it takes up less than a quarter of what it has.
func fit[T any](s []T) []T {
	if cap(s) > 64 && len(s) < cap(s)/4 {
		return append(make([]T, 0, 2*len(s)), s...)
	}
	return s
}
