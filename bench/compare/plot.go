package main

import (
	"bytes"
	"image/color"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// colours of the targets by the first part of their names.
var colours = map[string]color.Color{
	"daxfs":       color.RGBA{0x1f, 0x77, 0xb4, 0xff},
	"loopback":    color.RGBA{0xd6, 0x27, 0x28, 0xff},
	"passthrough": color.RGBA{0xff, 0x98, 0x96, 0xff},
	"null":        color.RGBA{0x7f, 0x7f, 0x7f, 0xff},
	"tmpfs":       color.RGBA{0x2c, 0xa0, 0x2c, 0xff},
	"ext4":        color.RGBA{0x98, 0xdf, 0x8a, 0xff},
}

// draw makes the plot of a row: a bar for each target, from the least to the largest sample a
// whisker. ok is false if there is nothing to show.
func (x *row) draw(format string) (b []byte, ok bool, err error) {
	p := plot.New()
	p.Title.Text = x.Name
	p.X.Label.Text = x.unit()
	p.X.Min = 0
	var names []string
	var ranges []plotter.XYs
	for _, t := range slices.Backward(targetNames) {
		v, ok := x.median(t, x.Metric)
		if !ok {
			continue
		}
		bars, err := plotter.NewBarChart(plotter.Values{v}, vg.Points(11))
		if err != nil {
			return nil, false, err
		}
		bars.Horizontal, bars.XMin, bars.LineStyle.Width = true, float64(len(names)), 0
		kind, _, _ := strings.Cut(t, "-")
		bars.Color = colours[kind]
		p.Add(bars)
		s := x.Cells[t].Samples[x.Metric]
		y := float64(len(names))
		ranges = append(ranges, plotter.XYs{{X: slices.Min(s), Y: y}, {X: slices.Max(s), Y: y}})
		names = append(names, t)
	}
	if len(names) == 0 {
		return nil, false, nil
	}
	for _, r := range ranges {
		l, err := plotter.NewLine(r)
		if err != nil {
			return nil, false, err
		}
		p.Add(l)
	}
	p.NominalY(names...)
	w, err := p.WriterTo(15*vg.Centimeter, vg.Length(len(names))*0.6*vg.Centimeter+2.5*vg.Centimeter, format)
	if err != nil {
		return nil, false, err
	}
	var buf bytes.Buffer
	if _, err := w.WriteTo(io.Writer(&buf)); err != nil {
		return nil, false, err
	}
	return buf.Bytes(), true, nil
}

// plots writes a PNG for each row.
func (r *Report) plots(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, x := range r.Rows {
		b, ok, err := x.draw("png")
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(x.Name, "/", "-")+".png"), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}
