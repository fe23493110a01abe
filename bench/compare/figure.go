package main

import (
	_ "embed"
	"fmt"
	"os"
	"text/template"
)

//go:embed figure.svg.tmpl
var figureTemplate string

// figureRows are the rows of the figure in docs/performance.md, from top to bottom.
var figureRows = []struct{ row, label string }{
	{"randread/psync/2", "random read, 2 jobs"}, {"randwrite/psync/2", "random write, 2 jobs"},
	{"randread/psync/1", "random read, 1 job"}, {"randwrite/psync/1", "random write, 1 job"},
	{"seqread/psync/1", "1 MiB read"}, {"seqwrite/psync/1", "1 MiB write"},
	{"meta/create", "create"}, {"meta/rename", "rename"}, {"meta/unlink", "unlink"},
}

// Geometry of the figure in pixels.
const (
	figureLeft  = 180 // x where the bars begin
	figureScale = 165 // length of 1 ×
	figureTop   = 84  // y of the first bar
	figureStep  = 42  // from row to row
	figureMost  = 4.6 // ratio of the longest bar that fits on the page
)

// figureBar is the bar of one contender in one row.
type figureBar struct {
	Class, Label       string
	Y, From, To        int
	TextY, Width, Null string
}

// figure writes the figure of docs/performance.md to an SVG file. It shows the operations per
// second of daxfsd over both transports as multiples of the loopback's, each beside its null bound.
// Rows that were not measured are left out.
func (r *Report) figure(path string) error {
	type mark struct{ X, Label int }
	type figureRow struct {
		Y     int
		Label string
		Bars  []figureBar
	}
	page := struct {
		Height, Bottom int
		Page           int
		Grid           []mark
		Rows           []figureRow
	}{}
	xOf := func(ratio float64) float64 { return figureLeft + figureScale*min(ratio, figureMost) }
	for _, entry := range figureRows {
		top := figureTop + figureStep*len(page.Rows)
		line := figureRow{Y: top + 20, Label: entry.label}
		for i, contender := range []struct{ name, class string }{{"daxfsd-uring", "blue"}, {"daxfsd-dev", "green"}} {
			ratio, ok := r.ratio(entry.row, contender.name, "loopback")
			if !ok {
				continue
			}
			y := top + 16*i
			bar := figureBar{
				Class: contender.class, Label: fmt.Sprintf("%.2f", ratio), Y: y, From: y - 1, To: y + 15,
				TextY: fmt.Sprintf("%.1f", float64(y)+11.5), Width: fmt.Sprintf("%.1f", xOf(ratio)-figureLeft),
			}
			if null, ok := r.ratio(entry.row, nullFor(contender.name), "loopback"); ok {
				bar.Null = fmt.Sprintf("%.1f", xOf(null))
			}
			line.Bars = append(line.Bars, bar)
		}
		if len(line.Bars) > 0 {
			page.Rows = append(page.Rows, line)
		}
	}
	page.Bottom = figureTop + figureStep*len(page.Rows) + 2
	page.Height, page.Page = page.Bottom+22, page.Bottom+21
	for i := range 5 {
		page.Grid = append(page.Grid, mark{figureLeft + i*figureScale, i})
	}
	t, err := template.New("figure").Parse(figureTemplate)
	if err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := t.Execute(file, &page); err != nil {
		return err
	}
	return file.Close()
}

// ratio returns the median of a row on one contender as a multiple of another's. ok is false if one
// of them was not measured.
func (r *Report) ratio(name, of, by string) (v float64, ok bool) {
	if x := r.find(name); x != nil {
		return x.ratio(of, by)
	}
	return 0, false
}
