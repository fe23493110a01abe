package explore

import (
	"fmt"
	"runtime/debug"

	"github.com/daxfsd/daxfsd/fs/lease"
	"github.com/daxfsd/daxfsd/pmem"
)

// recording is the log of a workload that ran, and its steps.
type recording struct {
	log   []event
	steps []step

	composed bool // the workload's composed
}

// record runs a workload on a fresh region.
func record(wl *Workload) (rec *recording, err error) {
	r, err := pmem.NewMemory(regionSize)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	w := &world{r: r, rec: &recorder{on: true, sites: true}, atomic: wl.atomic}
	if wl.direct {
		w.locks = new(lease.Fake)
	}
	r.SetRecorder(w.rec)
	defer func() {
		if e := recover(); e != nil {
			err = fmt.Errorf("%s: the workload itself failed: %v\n%s", wl.Name, e, debug.Stack())
		}
	}()
	w.format()
	w.mount()
	wl.setup(w)
	wl.op(w)
	if !wl.bare {
		follow(w)
	}
	if w.f != nil {
		if why := match(w.f, w.root); why != "" {
			return nil, fmt.Errorf("%s: without a crash, the filesystem differs from the model: %s", wl.Name, why)
		}
		w.rec.on = false
		w.unmount()
	}
	rec = &recording{log: w.rec.log, steps: w.steps, composed: wl.composed}
	return rec, nil
}
