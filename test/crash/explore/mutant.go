package explore

import "slices"

// mutant is a way in which the filesystem would be wrong. The explorer must notice each.
type mutant struct {
	skip  func(e *event) bool       // flushes and fences of the steps that never happened; nil: none
	order func(log []event) []event // another order of the stores; nil: as recorded
}

// siteKey names what a mutant leaves out: a kind of primitive at a call site.
func siteKey(e *event) string {
	if e.kind == evFlush {
		return "flush in " + e.site
	}
	return "fence in " + e.site
}

// mutants are all of a recording: each call site of a flush or fence within its steps left
// out, and each way to swap a commit with what it stands for.
func mutants(rec *recording) map[string]mutant {
	ms := map[string]mutant{}
	in := false
	for i := range rec.log {
		switch e := &rec.log[i]; e.kind {
		case evBegin:
			in = true
		case evEnd:
			in = false
		case evFlush, evFence:
			if in {
				key := siteKey(e)
				ms[key] = mutant{skip: func(e *event) bool { return siteKey(e) == key }}
			}
		}
	}
	for name, swap := range map[string]func([]event) ([]event, bool){
		"commit before the data that it shows": commitFirst,
		"lines in place before their record":   placeFirst,
	} {
		if _, ok := swap(rec.log); ok {
			ms[name] = mutant{order: func(log []event) []event { log, _ = swap(log); return log }}
		}
	}
	return ms
}

// isCommit reports whether log[i] and [i+1] are a record and its fence.
func isCommit(log []event, i int) bool {
	return log[i].kind == evNT && lanes().has(log[i].off) && i+1 < len(log) && log[i+1].kind == evFence
}

// commitFirst moves each record, with its fence, before what its step stored past the caches
// until then: the data that it makes visible.
func commitFirst(log []event) (out []event, any bool) {
	data := -1 // where in out the data begins that the next record shows; -1: none yet
	in := false
	for i := 0; i < len(log); i++ {
		e := &log[i]
		switch {
		case e.kind == evBegin || e.kind == evEnd:
			in, data = e.kind == evBegin, -1
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

// placeFirst moves what a transaction stores in place before its record.
func placeFirst(log []event) (out []event, any bool) {
	in := false
	for i := 0; i < len(log); i++ {
		e := &log[i]
		if e.kind == evBegin || e.kind == evEnd {
			in = e.kind == evBegin
		}
		if !in || !isCommit(log, i) {
			out = append(out, *e)
			continue
		}
		to := i + 2
		for to < len(log) && log[to].kind == evStore {
			to++
		}
		any = any || to > i+2
		out = append(append(out, log[i+2:to]...), log[i], log[i+1])
		i = to - 1
	}
	return out, any
}
