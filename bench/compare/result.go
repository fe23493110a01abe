package main

import (
	"encoding/json"
	"os"
	"slices"
	"time"
)

// Report is the result of a whole measurement; --json writes it.
type Report struct {
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"took_ns"`
	Machine machine       `json:"machine"`
	Config  *config       `json:"config"`
	Rows    []*row        `json:"rows"`
	Targets []*target     `json:"targets"`
	Errors  []string      `json:"errors"` // messages of the runs that failed
}

// row is one thing that is measured on all contenders.
type row struct {
	Name   string           `json:"name"`
	Metric string           `json:"metric"` // the metric that is shown and compared
	Lower  bool             `json:"lower"`  // lower values are better
	Cells  map[string]*cell `json:"cells"`  // by contender
}

// cell is a row on one contender: the samples of all rounds by metric, or the reason why there are
// none.
type cell struct {
	Samples map[string][]float64 `json:"samples,omitempty"`
	Why     string               `json:"why,omitempty"`
}

// find returns the row of that name, or nil.
func (r *Report) find(name string) *row {
	for _, x := range r.Rows {
		if x.Name == name {
			return x
		}
	}
	return nil
}

// row returns the row of that name, and adds it if necessary.
func (r *Report) row(name, metric string, lower bool) *row {
	if x := r.find(name); x != nil {
		return x
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

// unmeasured records why the rows have no samples of a contender. If names are given, it does so
// only for the rows of these names.
func unmeasured(rows []*row, contender, why string, names ...string) {
	for _, x := range rows {
		if len(names) == 0 || slices.Contains(names, x.Name) {
			x.cell(contender).Why = why
		}
	}
}

// add adds a sample.
func (c *cell) add(metric string, v float64) { c.Samples[metric] = append(c.Samples[metric], v) }

// median returns the median of a metric in a row on a contender; ok is false if there is none.
func (r *Report) median(name, contender, metric string) (v float64, ok bool) {
	if x := r.find(name); x != nil {
		return x.median(contender, metric)
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

// ratio returns by what factor a contender is better than against, in the row's metric.
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

// write writes the report as JSON.
func (r *Report) write(file string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
