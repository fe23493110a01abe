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
			v.why = "it is no filesystem any more"
		case v.is&isOld != 0:
			v.why = "the operation had returned, and the old state is back"
		case v.is >= isAlt0:
			v.why = fmt.Sprintf("one of the operations (%b) had returned, and is not there", k.done)
		case v.is&isNewUnclean != 0:
			v.why = "unmount had returned, and the filesystem is not clean"
		default:
			v.why = "the operation had returned, and is done in part only"
		}
	}
	return v.why, nested
}

func (k *walk) judge(n int, ps []patch, seed, h uint64) (v verdict, nested string) {
	x := k.x
	x.patch(ps)
	defer x.undo()
	s := &k.rec.steps[k.step]
	r := rnd(seed ^ uint64(n)*0x9e37)
	j := judge{r: x.scratch, step: s, returned: k.fence < 0, deleteAll: x.cfg.DeleteAll > 0 && r.n(x.cfg.DeleteAll) == 0, may: isOld | isNew | isNone}
	if s.mid != nil {
		j.may |= isMid
	}
	crash := !k.mutated && x.cfg.Nested > 0 && (r.n(x.cfg.Nested) == 0 || x.cfg.State >= 0)
	var before []byte
	if crash {
		before = append([]byte(nil), x.scratch.Bytes(0, regionSize)...)
		x.dirt.rec.log, x.dirt.rec.on = nil, true
	}
	// States that recovery makes equal are judged once, except for a sample.
	again := j.deleteAll || crash || r.n(32) == 0
	var to recovered
	j.mounted = func() outcome {
		x.dirt.rec.on = false
		to = x.recovered(k.m, k.step, j.unclean)
		if again {
			return 0
		}
		return k.good[to]
	}
	label := fmt.Sprintf("%s, step %q, state %d", k.res.Workload, s.name, n)
	x.doing.Store(&label)
	v = j.run()
	x.dirt.rec.on = false
	if v.why == "" && v.is != isNone {
		k.good[to] = v.is
	}
	if crash && v.why == "" && v.is != isNone {
		var cnt int
		v.why, nested, cnt = k.crashRecovery(before, x.dirt.rec.log, s, v.is)
		k.res.Nested += cnt
	}
	return v, nested
}

// crashRecovery explores the crash states of a recovery that began on the image before and whose
// events are log. Each must lead to the same tree as the recovery that was not crashed. It returns
// why a state is wrong, that state, and the number of states.
func (k *walk) crashRecovery(before []byte, log []event, s *step, is outcome) (why, kind string, states int) {
	x := k.x
	if x.inner == nil {
		cfg := x.cfg
		cfg.Nested, cfg.DeleteAll = 0, 0
		cfg.Limits = Limits{Lines: 24, Torn: 3, Random: 8}
		inner, err := newExplorer(cfg)
		if err != nil {
			return err.Error(), "", 0
		}
		x.inner = inner
	}
	in := x.inner
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
	m := newImage(in.durable)
	for off := int64(0); off < regionSize; off += lineSize {
		if !lanes().has(off) {
			m.rest += hashLine(off, m.at(off))
		}
	}
	m.changed = func(off int64) { in.put(off, m.at(off)) }
	seen := map[uint64]bool{}
	try := func(kd string, ps []patch) bool {
		h := m.hash
		for i := range ps {
			h += hashLine(ps[i].off, &ps[i].l) - hashLine(ps[i].off, m.at(ps[i].off))
		}
		if seen[h] {
			return true
		}
		seen[h] = true
		states++
		in.patch(ps)
		j := judge{r: in.scratch, step: s, returned: k.fence < 0, may: is &^ isNewUnclean}
		if is&isNewUnclean != 0 {
			j.may = isNew
		}
		var to recovered
		j.mounted = func() outcome {
			to = in.recovered(m, k.step, j.unclean)
			return k.good[to]
		}
		v := j.run()
		if v.why == "" && v.is != isNone {
			k.good[to] = v.is
		}
		in.undo()
		if v.why == "" && v.is&(is|isNewUnclean) == 0 {
			v.why = "the second recovery reached another state than the first"
		}
		why, kind = v.why, kd
		return why == ""
	}
	for i := range log {
		switch e := &log[i]; e.kind {
		case evStore, evNT:
			m.store(e, i)
		case evFlush:
			m.flush(e)
		case evFence:
			n := i
			if m.states(uint64(i), in.cfg.Limits, func(kd string, ps []patch) bool { return try(fmt.Sprintf("event %d, %s", n, kd), ps) }); why != "" {
				return why, kind, states
			}
			m.fence(e.tid)
		}
	}
	m.states(0, in.cfg.Limits, func(kd string, ps []patch) bool { return try("mounted, "+kd, ps) })
	return why, kind, states
}
