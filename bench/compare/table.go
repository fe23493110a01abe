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

// columns of the tables. Ratios above 1 say that the target is better.
var columns = []string{"target", "median", "spread", "× loopback", "× null", "× tmpfs", "p50 µs", "p99 µs", "allocs/op"}

// line is a row on a target, as it is shown.
type line struct {
	Cells []string // as columns; two if Why is set
	Why   string
}

// loopbackFor is the loopback that is cached as target is.
func loopbackFor(contender string) string {
	if strings.HasSuffix(contender, "-cached") {
		return "loopback-cached"
	}
	return "loopback"
}

// nullFor is the null bound of target's transport; "": it has none.
func nullFor(contender string) string {
	if tr, ok := strings.CutPrefix(contender, "daxfsd-"); ok && !strings.HasSuffix(tr, "-cached") {
		return "null-" + tr
	}
	return ""
}

// Lines of the table of a row.
func (x *row) Lines() (all []line) {
	for _, t := range contenderNames {
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

// spread is what lies between the least and the largest sample, as a share of the median.
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

// firstOf is the first line of a text.
func firstOf(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// number shows a figure with about three digits.
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

// how is what the figures come from, in a sentence.
func (r *Report) how() string {
	s := fmt.Sprintf("Medians of %d rounds, interleaved; fio ran for %v each; %s, %v in all.",
		r.Config.Rounds, r.Config.Runtime, r.Started.UTC().Format("2006-01-02 15:04 UTC"), r.Took.Round(time.Second))
	if r.Config.Quick {
		s += " This was a quick run: its figures mean nothing."
	}
	return s
}

// explained is what a reader must know of the tables.
const explained = "Ratios are of medians within this run, and above 1 the target is better than what it is compared with. " +
	"daxfsd-* are dax=always, without the kernel's cache, as loopback and the null bounds are; *-cached have it. " +
	"The null bound answers READ from a slice and copies WRITE into it. spread is from the least to the largest sample. allocs/op are heap objects of " +
	"the whole daemon for each READ and WRITE."

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

// unit says what a row's figures are.
func (x *row) unit() string {
	if x.Lower {
		return x.Metric + ", less is better"
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
