package main

import (
	"encoding/json"
	"os"
	"slices"
	"time"
)

// Report is a whole measurement; --json writes it.
type Report struct {
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"took_ns"`
	Machine machine       `json:"machine"`
	Config  *config       `json:"config"`
	Rows    []*row        `json:"rows"`
	Targets []*target     `json:"targets"`
	Errors  []string      `json:"errors"` // of runs that failed
}

// row is one thing that was measured, on all targets.
type row struct {
	Name   string           `json:"name"`
	Metric string           `json:"metric"` // the one that is shown and compared
	Lower  bool             `json:"lower"`  // less of it is better
	Cells  map[string]*cell `json:"cells"`  // by target
}

// cell is a row on one target: the samples of the rounds by metric, or why there are none.
type cell struct {
	Samples map[string][]float64 `json:"samples,omitempty"`
	Why     string               `json:"why,omitempty"`
}

// row finds or makes the row of that name.
func (r *Report) row(name, metric string, lower bool) *row {
	for _, x := range r.Rows {
		if x.Name == name {
			return x
		}
	}
	x := &row{Name: name, Metric: metric, Lower: lower, Cells: map[string]*cell{}}
	r.Rows = append(r.Rows, x)
	return x
}

func (x *row) cell(contender string) *cell {
	c := x.Cells[contender]
	if c == nil {
		c = &cell{Samples: map[string][]float64{}}
		x.Cells[contender] = c
	}
	return c
}

// unmeasured says why a target has no samples in the rows, or in those of the names if there are
// any.
func unmeasured(rows []*row, contender, why string, names ...string) {
	for _, x := range rows {
		if len(names) == 0 || slices.Contains(names, x.Name) {
			x.cell(contender).Why = why
		}
	}
}

// add keeps a sample.
func (c *cell) add(metric string, v float64) { c.Samples[metric] = append(c.Samples[metric], v) }

// median of a metric in a row on a target; ok is false if there is none.
func (r *Report) median(name, contender, metric string) (v float64, ok bool) {
	for _, x := range r.Rows {
		if x.Name == name {
			return x.median(contender, metric)
		}
	}
	return 0, false
}

func (x *row) median(contender, metric string) (v float64, ok bool) {
	c := x.Cells[contender]
	if c == nil {
		return 0, false
	}
	s := slices.Clone(c.Samples[metric])
	if len(s) == 0 {
		return 0, false
	}
	slices.Sort(s)
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2, true
	}
	return s[len(s)/2], true
}

// ratio is how much better target is than against, of the row's metric.
func (x *row) ratio(contender, against string) (float64, bool) {
	a, ok1 := x.median(contender, x.Metric)
	b, ok2 := x.median(against, x.Metric)
	if !ok1 || !ok2 || a == 0 || b == 0 {
		return 0, false
	}
	if x.Lower {
		return b / a, true
	}
	return a / b, true
}

// write writes it as JSON.
func (r *Report) write(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
