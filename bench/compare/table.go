package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// columns of the tables. A ratio above 1 means that the contender is better.
var columns = []string{"filesystem", "median", "spread", "× loopback", "× null", "× tmpfs", "p50 µs", "p99 µs", "allocs/op"}

// line is the table line of a row on one contender.
type line struct {
	Cells []string // one for each column; only two if nothing was measured
	Why   string   // why something was not measured; else ""
}

// loopbackFor names the loopback with the same caching as a contender.
func loopbackFor(contender string) string {
	if strings.HasSuffix(contender, "-cached") {
		return "loopback-cached"
	}
	return "loopback"
}

// nullFor names the null bound of a contender's transport; "" if there is none.
func nullFor(contender string) string {
	if tr, ok := strings.CutPrefix(contender, "daxfsd-"); ok && !strings.HasSuffix(tr, "-cached") {
		return "null-" + tr
	}
	return ""
}

// Lines returns the table lines of a row.
func (x *row) Lines() (all []line) {
	for _, t := range shownNames {
		c := x.Cells[t]
		if c == nil {
			continue
		}
		v, ok := x.median(t, x.Metric)
		if !ok {
			all = append(all, line{Cells: []string{t, "n/a"}, Why: firstOf(c.Why)})
			continue
		}
		l := []string{t, number(v), x.spread(t)}
		for _, against := range []string{loopbackFor(t), nullFor(t), "tmpfs"} {
			s := ""
			if r, ok := x.ratio(t, against); ok && against != t {
				s = fmt.Sprintf("%.2f", r)
			}
			l = append(l, s)
		}
		for _, m := range []string{"p50_us", "p99_us"} {
			s := ""
			if v, ok := x.median(t, m); ok {
				s = fmt.Sprintf("%.1f", v)
			}
			l = append(l, s)
		}
		s := ""
		if v, ok := x.median(t, "allocs_per_op"); ok {
			s = fmt.Sprintf("%.5f", v)
		}
		all = append(all, line{Cells: append(l, s), Why: firstOf(c.Why)})
	}
	return all
}

// spread is the difference of the largest and the smallest sample, as a share of the median.
func (x *row) spread(contender string) string {
	s := x.Cells[contender].Samples[x.Metric]
	m, _ := x.median(contender, x.Metric)
	least, most := s[0], s[0]
	for _, v := range s {
		least, most = min(least, v), max(most, v)
	}
	if m == 0 || len(s) < 2 {
		return ""
	}
	return fmt.Sprintf("%.0f %%", 100*(most-least)/m)
}

// firstOf returns the first line of a text.
func firstOf(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// number formats a figure with about three digits.
func number(v float64) string {
	switch {
	case v >= 10_000:
		return fmt.Sprintf("%.1fk", v/1e3)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.4f", v)
}

// how explains in a sentence how the figures were measured.
func (r *Report) how() string {
	s := fmt.Sprintf("Medians of %d rounds, interleaved; fio ran for %v each; %s, %v in all.",
		r.Config.Rounds, r.Config.Runtime, r.Started.UTC().Format("2006-01-02 15:04 UTC"), r.Took.Round(time.Second))
	if r.Config.Quick {
		s += " This was a quick run: its figures mean nothing."
	}
	return s
}

// explained is what a reader must know about the tables.
const explained = "Ratios are of medians within this run; above 1 the filesystem of the line is better than the one in the column's title. " +
	"daxfsd-* run with dax=always, without the kernel's cache, like loopback and the null bounds; *-cached use it. " +
	"The null bound answers READ from a slice and copies WRITE into it. The spread is the largest minus the smallest sample. allocs/op counts the heap objects that " +
	"the whole daemon allocates for each READ and WRITE."

// text prints all tables for a terminal.
func (r *Report) text(w io.Writer) {
	fmt.Fprintf(w, "%s\n%s\n%s\n", r.Machine.String(), r.how(), explained)
	for _, x := range r.Rows {
		fmt.Fprintf(w, "\n%s (%s)\n", x.Name, x.unit())
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "  "+strings.Join(columns, "\t"))
		for _, l := range x.Lines() {
			fmt.Fprintln(t, "  "+strings.TrimRight(strings.Join(l.Cells, "\t")+"\t"+l.Why, "\t"))
		}
		t.Flush()
	}
	fmt.Fprintln(w, "\ntargets")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, b := range r.Targets {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", b.Verdict, b.Shown(), b.Demand(), b.Name)
	}
	t.Flush()
	for _, e := range r.Errors {
		fmt.Fprintln(w, "FAILED:", e)
	}
}

// unit names the unit of a row's figures.
func (x *row) unit() string {
	if x.Lower {
		return x.Metric + ", lower is better"
	}
	return x.Metric
}

// markdown writes the tables for a page.
func (r *Report) markdown(file string) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "## The machine\n\n%s\n\n%s\n\n%s\n\n## Targets\n\n| | measured | demanded | |\n|---|---|---|---|\n", r.Machine.String(), r.how(), explained)
	for _, x := range r.Targets {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", x.Name, x.Shown(), x.Demand(), x.Verdict)
	}
	fmt.Fprintf(&b, "\n## Rows\n")
	for _, x := range r.Rows {
		fmt.Fprintf(&b, "\n### %s (%s)\n\n| %s |\n|%s\n", x.Name, x.unit(), strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
		for _, l := range x.Lines() {
			cells := append(append([]string{}, l.Cells...), make([]string, len(columns)-len(l.Cells))...)
			if l.Why != "" {
				cells[2] = strings.TrimSpace(cells[2] + " " + strings.ReplaceAll(l.Why, "|", `\|`))
			}
			fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
		}
	}
	for _, e := range r.Errors {
		fmt.Fprintf(&b, "\nFAILED: %s\n", firstOf(e))
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}
