package main

import (
	"bytes"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// colours of the contenders, by the first part of their names.
var colours = map[string]color.Color{
	"daxfsd":      color.RGBA{0x1f, 0x77, 0xb4, 0xff},
	"loopback":    color.RGBA{0xd6, 0x27, 0x28, 0xff},
	"passthrough": color.RGBA{0xff, 0x98, 0x96, 0xff},
	"null":        color.RGBA{0x7f, 0x7f, 0x7f, 0xff},
	"direct":      color.RGBA{0x94, 0x67, 0xbd, 0xff},
	"memory":      color.RGBA{0xc5, 0xb0, 0xd5, 0xff},
	"tmpfs":       color.RGBA{0x2c, 0xa0, 0x2c, 0xff},
	"ext4":        color.RGBA{0x98, 0xdf, 0x8a, 0xff},
}

// draw plots a row as PNG: a bar for each contender, with a line from the smallest to the largest
// sample. ok is false if there is nothing to show.
func (x *row) draw() (png []byte, ok bool, err error) {
	drawing := plot.New()
	drawing.Title.Text = x.Name
	drawing.X.Label.Text = x.unit()
	drawing.X.Min = 0
	drawing.X.Tick.Marker = plot.TickerFunc(func(least, most float64) []plot.Tick {
		ticks := plot.DefaultTicks{}.Ticks(least, most)
		for i := range ticks {
			if ticks[i].Label != "" && ticks[i].Value != 0 {
				ticks[i].Label = number(ticks[i].Value)
			}
		}
		return ticks
	})
	var names []string
	var ranges []plotter.XYs
	for _, t := range slices.Backward(shownNames) {
		median, ok := x.median(t, x.Metric)
		if !ok {
			continue
		}
		chart, err := plotter.NewBarChart(plotter.Values{median}, vg.Points(11))
		if err != nil {
			return nil, false, err
		}
		chart.Horizontal, chart.XMin, chart.LineStyle.Width = true, float64(len(names)), 0
		kind, _, _ := strings.Cut(t, "-")
		chart.Color = colours[kind]
		drawing.Add(chart)
		samples := x.Cells[t].Samples[x.Metric]
		y := float64(len(names))
		ranges = append(ranges, plotter.XYs{{X: slices.Min(samples), Y: y}, {X: slices.Max(samples), Y: y}})
		names = append(names, t)
	}
	if len(names) == 0 {
		return nil, false, nil
	}
	for _, ends := range ranges {
		line, err := plotter.NewLine(ends)
		if err != nil {
			return nil, false, err
		}
		drawing.Add(line)
	}
	drawing.NominalY(names...)
	drawing.Y.Min, drawing.Y.Max = -0.5, float64(len(names))-0.5
	drawing.X.Max *= 1.03 // leaves room for the end of a line
	canvas := vgimg.New(16*vg.Centimeter, vg.Length(len(names))*0.6*vg.Centimeter+3*vg.Centimeter)
	// The longest name extends beyond the space reserved for names, and the last bar's label beyond
	// the plot.
	drawing.Draw(draw.Crop(draw.New(canvas), vg.Centimeter/2, -vg.Centimeter/2, 0, -vg.Centimeter/4))
	var buf bytes.Buffer
	if _, err := (vgimg.PngCanvas{Canvas: canvas}).WriteTo(&buf); err != nil {
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
		b, ok, err := x.draw()
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
