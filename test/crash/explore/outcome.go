package explore

import (
	"fmt"
)

// outcome is a set of bits: the trees that a state may lead to.
type outcome uint32

const (
	isOld outcome = 1 << iota
	isNew
	isMid
	isNone // the region holds no filesystem
	isNewUnclean
	isAlt0 // the first of a step's alts; the bits of the others follow
)

// isAlt returns the bit of the i-th of a step's alts.
func isAlt(i int) outcome { return isAlt0 << i }

// allowed returns the outcomes that a crash at the current point may have.
func (k *walk) allowed(s *step) outcome {
	switch {
	case s.alts != nil:
		var o outcome
		for i, a := range s.alts {
			if k.done&^a.has == 0 && (k.fence >= 0 || a.has == 3) {
				o |= isAlt(i)
			}
		}
		return o
	case k.fence < 0:
		return isNew
	case s.format:
		return isOld | isNew | isNone
	case s.mid != nil:
		return isOld | isNew | isMid
	}
	return isOld | isNew | isNewUnclean
}

// verdict is the judgement of a state: the trees that it equals, or why it is wrong.
type verdict struct {
	is  outcome
	why string
}

// try makes state n, judges it unless an equal state was judged before, and takes it back. It
// returns why the state is wrong ("": it is right), and the state of the crashed recovery if that
// is wrong.
func (k *walk) try(n int, ps []patch, allowed outcome, seed uint64) (why, nested string) {
	k.res.Made++
	h := k.m.hash
	for i := range ps {
		h += hashLine(ps[i].off, &ps[i].l) - hashLine(ps[i].off, k.m.at(ps[i].off))
	}
	key := h
	if k.rec.steps[k.step].repair && k.fence < 0 {
		key = ^h // a repair that has returned is not run again, so it is judged separately
	}
	v, ok := k.seen[key]
	if !ok {
		k.res.States++
		v, nested = k.judge(n, ps, seed, h)
		k.seen[key] = v
	} else if v.why != "" {
		return "", "" // it was reported when it was first seen
	}
	if v.why == "" && v.is&allowed == 0 {
		switch {
		case v.is&isNone != 0:
			v.why = "the region holds no filesystem any more"
		case v.is&isOld != 0:
			v.why = "the operation had returned, and the old state is back"
		case v.is >= isAlt0:
			v.why = fmt.Sprintf("an operation had returned (bits of those that had: %b), and its effect is missing", k.done)
		case v.is&isNewUnclean != 0:
			v.why = "unmount had returned, and the filesystem is not clean"
		default:
			v.why = "the operation had returned, and is done in part only"
		}
	}
	return v.why, nested
}

func (k *walk) judge(n int, patches []patch, seed, sum uint64) (result verdict, nested string) {
	explorer := k.x
	explorer.patch(patches)
	defer explorer.undo()
	step := &k.rec.steps[k.step]
	rng := rnd(seed ^ uint64(n)*0x9e37)
	judging := judge{r: explorer.scratch, step: step, returned: k.fence < 0, deleteAll: explorer.cfg.DeleteAll > 0 && rng.n(explorer.cfg.DeleteAll) == 0, may: isOld | isNew | isNone}
	if step.mid != nil {
		judging.may |= isMid
	}
	crash := !k.mutated && explorer.cfg.Nested > 0 && (rng.n(explorer.cfg.Nested) == 0 || explorer.cfg.State >= 0)
	var before []byte
	if crash {
		before = append([]byte(nil), explorer.scratch.Bytes(0, regionSize)...)
		explorer.dirt.rec.log, explorer.dirt.rec.on = nil, true
	}
	// States that recovery makes equal are judged once, except for a sample.
	again := judging.deleteAll || crash || rng.n(32) == 0
	var became recovered
	judging.mounted = func() outcome {
		explorer.dirt.rec.on = false
		became = explorer.recovered(k.m, k.step, judging.unclean)
		if again {
			return 0
		}
		return k.good[became]
	}
	label := fmt.Sprintf("%s, step %q, state %d", k.res.Workload, step.name, n)
	explorer.doing.Store(&label)
	result = judging.run()
	explorer.dirt.rec.on = false
	if result.why == "" && result.is != isNone {
		k.good[became] = result.is
	}
	if crash && result.why == "" && result.is != isNone {
		var cnt int
		result.why, nested, cnt = k.crashRecovery(before, explorer.dirt.rec.log, step, result.is)
		k.res.Nested += cnt
	}
	return result, nested
}

// crashRecovery explores the crash states of a recovery that began on the image before and whose
// events are log. Each must lead to the same tree as the recovery that was not crashed. It returns
// why a state is wrong, that state, and the number of states.
func (k *walk) crashRecovery(before []byte, log []event, during *step, first outcome) (why, kind string, states int) {
	explorer := k.x
	if explorer.inner == nil {
		cfg := explorer.cfg
		cfg.Nested, cfg.DeleteAll = 0, 0
		cfg.Limits = Limits{Lines: 24, Torn: 3, Random: 8}
		inner, err := newExplorer(cfg)
		if err != nil {
			return err.Error(), "", 0
		}
		explorer.inner = inner
	}
	in := explorer.inner
	in.quietly(func() {
		for off := int64(0); off < regionSize; off += 4096 {
			if string(in.durable[off:off+4096]) != string(before[off:off+4096]) {
				if err := in.scratch.Store(off, before[off:off+4096]); err != nil {
					panic(err)
				}
			}
		}
	})
	copy(in.durable, before)
	img := newImage(in.durable)
	for off := int64(0); off < regionSize; off += lineSize {
		if !lanes().has(off) {
			img.rest += hashLine(off, img.at(off))
		}
	}
	img.changed = func(off int64) { in.put(off, img.at(off)) }
	seen := map[uint64]bool{}
	try := func(name string, patches []patch) bool {
		hash := img.hash
		for i := range patches {
			hash += hashLine(patches[i].off, &patches[i].l) - hashLine(patches[i].off, img.at(patches[i].off))
		}
		if seen[hash] {
			return true
		}
		seen[hash] = true
		states++
		in.patch(patches)
		judging := judge{r: in.scratch, step: during, returned: k.fence < 0, may: first &^ isNewUnclean}
		if first&isNewUnclean != 0 {
			judging.may = isNew
		}
		var became recovered
		judging.mounted = func() outcome {
			became = in.recovered(img, k.step, judging.unclean)
			return k.good[became]
		}
		result := judging.run()
		if result.why == "" && result.is != isNone {
			k.good[became] = result.is
		}
		in.undo()
		if result.why == "" && result.is&(first|isNewUnclean) == 0 {
			result.why = "the second recovery reached another state than the first"
		}
		why, kind = result.why, name
		return why == ""
	}
	for i := range log {
		switch entry := &log[i]; entry.kind {
		case evStore, evNT:
			img.store(entry, i)
		case evFlush:
			img.flush(entry)
		case evFence:
			n := i
			if img.states(uint64(i), in.cfg.Limits, func(name string, patches []patch) bool { return try(fmt.Sprintf("event %d, %s", n, name), patches) }); why != "" {
				return why, kind, states
			}
			img.fence(entry.tid)
		}
	}
	img.states(0, in.cfg.Limits, func(name string, patches []patch) bool { return try("mounted, "+name, patches) })
	return why, kind, states
}
