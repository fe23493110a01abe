package hugepage

import (
	"slices"
	"testing"
)

func TestPageSizesOf(t *testing.T) {
	const k, m, g = 4096, 2 << 20, 1 << 30
	for _, c := range []struct {
		name string
		s    PageSizes
		runs []Run
		want []Pages
	}{
		{"no runs", PageSizes{k, m}, nil, []Pages{}},
		{"aligned", PageSizes{k, m}, []Run{{0, 4 * m, 3 * m}}, []Pages{{Largest: 3 * m}}},
		{"not aligned in the file", PageSizes{k, m}, []Run{{k, 4 * m, 3 * m}}, []Pages{{Largest: 3 * m}}},
		{"both ends not aligned", PageSizes{k, m}, []Run{{0, m - k, 2*m + 2*k}}, []Pages{{Largest: 2 * m, Granule: 2 * k}}},
		{"shorter than a page", PageSizes{k, m}, []Run{{0, 4 * m, m - k}}, []Pages{{Granule: m - k}}},
		{"two runs that lie alike", PageSizes{k, m}, []Run{{0, 8 * m, m}, {m, 2 * m, m}}, []Pages{{Largest: m}, {Largest: m}}},
		{"two runs that lie otherwise", PageSizes{k, m}, []Run{{0, 8 * m, m}, {m, 2*m + k, 3 * m}}, []Pages{{Granule: m}, {Largest: 2 * m, Granule: m}}},
		{"adjacent runs", PageSizes{k, m}, []Run{{0, 4 * m, k}, {k, 4*m + k, m}}, []Pages{{Largest: k}, {Largest: m - k, Granule: k}}},
		{"adjacent in the region only", PageSizes{k, m}, []Run{{0, 4 * m, k}, {2 * k, 4*m + k, m}}, []Pages{{Granule: k}, {Granule: m}}},
		{"small pages only", PageSizes{k, k}, []Run{{0, 4 * m, 3 * m}}, []Pages{{Granule: 3 * m}}},
		{"large granule", PageSizes{g, g}, []Run{{0, 4*m + k, m}}, []Pages{{Granule: m}}},
		{"large granule, two runs", PageSizes{m, m}, []Run{{0, 4 * m, m}, {m, 9*m + k, k}}, []Pages{{Granule: m}, {None: k}}},
	} {
		if got := c.s.Of(c.runs); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}
