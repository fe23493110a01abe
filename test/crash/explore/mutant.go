package explore

import (
	"slices"
	"strings"
)

// mutant describes a bug in one kind of operation. The explorer must notice each mutant in one of
// the workloads where that operation is a step.
type mutant struct {
	kind  string                                                            // kind of the steps that it changes
	skip  func(e *event) bool                                               // reports which flushes and fences are left out; nil: none
	order func(log []event, in func(step int) bool) (out []event, any bool) // reorders the stores of some steps; nil: as recorded
}

// kind returns the kind of operation of a step: rename for "rename-over-file" and for "then rename
// f d/g".
func (s *step) kind() string {
	name := strings.TrimPrefix(s.name, "then ")
	if strings.Contains(name, " and ") {
		return "two at once"
	}
	if i := strings.IndexAny(name, " -"); i > 0 {
		name = name[:i]
	}
	switch name {
	case "append", "overwrite", "again":
		return "write"
	}
	return name
}

// siteKey names the primitives that a mutant leaves out: flushes or fences at one call site.
func siteKey(e *event) string {
	if e.kind == evFlush {
		return "flush in " + e.site
	}
	return "fence in " + e.site
}

// orders maps names to functions that move a commit record before the stores that must come first,
// or stores in place before their commit record.
var orders = map[string]func([]event, func(step int) bool) ([]event, bool){
	"commit before the data that it shows": commitFirst,
	"lines in place before their record":   placeFirst,
}

// mutants returns all mutants of a recording: for each kind of operation, each call site of a flush
// or fence left out of its steps, and each order.
func mutants(rec *recording) map[string]mutant {
	ms := map[string]mutant{}
	kind := ""
	for i := range rec.log {
		switch e := &rec.log[i]; e.kind {
		case evBegin:
			kind = rec.steps[e.step].kind()
		case evEnd:
			kind = ""
		case evFlush, evFence:
			if kind != "" {
				key := siteKey(e)
				ms[kind+": "+key] = mutant{kind: kind, skip: func(e *event) bool { return siteKey(e) == key }}
			}
		}
	}
	kinds := map[string]bool{}
	for i := range rec.steps {
		kinds[rec.steps[i].kind()] = true
	}
	for kind := range kinds {
		for name, order := range orders {
			if _, any := order(rec.log, rec.in(kind)); any {
				ms[kind+": "+name] = mutant{kind: kind, order: order}
			}
		}
	}
	return ms
}

// in returns a function that reports whether a step is of that kind.
func (rec *recording) in(kind string) func(step int) bool {
	return func(step int) bool { return rec.steps[step].kind() == kind }
}

// isCommit reports whether log[i] and log[i+1] are the store of a record and its fence.
func isCommit(log []event, i int) bool {
	return log[i].kind == evNT && lanes().has(log[i].off) && i+1 < len(log) && log[i+1].kind == evFence
}

// commitFirst moves each record, with its fence, before the non-temporal stores of the step that
// precede the record: the data that the record makes visible.
func commitFirst(log []event, of func(step int) bool) (out []event, any bool) {
	data := -1 // index in out where the data of the next record begins; -1: none yet
	in := false
	for i := 0; i < len(log); i++ {
		e := &log[i]
		switch {
		case e.kind == evBegin || e.kind == evEnd:
			in, data = e.kind == evBegin && of(e.step), -1
		case in && isCommit(log, i):
			if data >= 0 {
				out = slices.Insert(out, data, log[i], log[i+1])
				any = true
			} else {
				out = append(out, log[i], log[i+1])
			}
			data = -1
			i++
			continue
		case in && e.kind == evNT && data < 0:
			data = len(out)
		}
		out = append(out, *e)
	}
	return out, any
}

// placeFirst moves a transaction's stores in place before its record.
func placeFirst(log []event, of func(step int) bool) (out []event, any bool) {
	in := false
	for i := 0; i < len(log); i++ {
		e := &log[i]
		if e.kind == evBegin || e.kind == evEnd {
			in = e.kind == evBegin && of(e.step)
		}
		if !in || !isCommit(log, i) {
			out = append(out, *e)
			continue
		}
		to := i + 2
		logged := e.n == lineSize // a logged record: only its header is in the lane
		for to < len(log) && (log[to].kind == evStore || logged && log[to].kind != evFence) {
			to++
		}
		any = any || to > i+2
		out = append(append(out, log[i+2:to]...), log[i], log[i+1])
		i = to - 1
	}
	return out, any
}
