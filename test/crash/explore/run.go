package explore

import (
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/daxfs/daxfs/fs"
	"github.com/daxfs/daxfs/pmem"
)

// emptyFree is how many blocks an empty filesystem has free.
var emptyFree = sync.OnceValue(func() uint64 {
	r, err := pmem.NewMemory(regionSize)
	if err != nil {
		panic(err)
	}
	defer r.Close()
	w := &world{r: r, rec: &recorder{}}
	w.format()
	w.mount()
	var st fs.StatFS
	w.f.StatFS(&st)
	w.unmount()
	return st.Bfree
})

// Report is what a run found.
type Report struct {
	Workloads int       `json:"workloads"`
	Points    int       `json:"crash_points"`
	Made      int       `json:"states_made"` // before equal ones were left out
	States    int       `json:"states"`
	Nested    int       `json:"recovery_states"` // crashed recoveries among them
	Failures  []Failure `json:"failed"`
	Failed    int       `json:"failures"`
	Mutants   int       `json:"mutants"`
	Killed    int       `json:"killed"`
	Survivors []string  `json:"survivors,omitempty"`
	Seconds   float64   `json:"seconds"`
	Results   []Result  `json:"-"`
}

// Runner runs workloads on several explorers at once.
type Runner struct {
	Config  Config
	Workers int
	// Mutants is how many mutants to try: pairs of workload and call site of a flush or
	// fence, chosen by seed; < 0: all.
	Mutants int
	// Progress is told how far it is; nil: nobody.
	Progress func(stage string, done, total, states int)
	// Stuck is how long one state may take before Hang is called.
	Stuck time.Duration
	Hang  func(what string)
}

// Run explores the workloads.
func (r *Runner) Run(ws []Workload) (*Report, error) {
	start := time.Now()
	rep := &Report{Workloads: len(ws), Failures: []Failure{}}
	recs := make([]*recording, len(ws))
	results := make([]Result, len(ws))
	var count atomic.Int64
	r.Config.States = &count
	err := r.each("exploring", len(ws), func(x *explorer, i int) error {
		rec, err := record(&ws[i])
		if err != nil {
			return err
		}
		recs[i] = rec
		results[i] = x.explore(ws[i].Name, rec, nil)
		return nil
	})
	for i := range results {
		res := &results[i]
		rep.Points += res.Points
		rep.States += res.States + res.Nested
		rep.Nested += res.Nested
		rep.Made += res.Made
		rep.Failures = append(rep.Failures, res.Failures...)
	}
	rep.Failed = len(rep.Failures)
	rep.Results = results
	if err == nil && r.Mutants != 0 && rep.Failed == 0 {
		err = r.mutate(ws, recs, rep)
	}
	rep.Seconds = time.Since(start).Seconds()
	return rep, err
}

// mutate drops one call site's flushes or fences at a time, within the operations of a
// workload, and asks whether the explorer notices.
func (r *Runner) mutate(ws []Workload, recs []*recording, rep *Report) error {
	type mutant struct {
		w    int
		site string
	}
	var ms []mutant
	for i, rec := range recs {
		var sites []string
		for s := range rec.sites {
			sites = append(sites, s)
		}
		sort.Strings(sites)
		for _, s := range sites {
			ms = append(ms, mutant{i, s})
		}
	}
	if r.Mutants > 0 {
		g := rnd(r.Config.Seed)
		for len(ms) > r.Mutants {
			i := g.n(len(ms))
			ms[i] = ms[len(ms)-1]
			ms = ms[:len(ms)-1]
		}
	}
	killed := make([]bool, len(ms))
	err := r.each("mutants", len(ms), func(x *explorer, i int) error {
		killed[i] = len(x.explore(ws[ms[i].w].Name, recs[ms[i].w], siteMutant(ms[i].site)).Failures) > 0
		return nil
	})
	rep.Mutants = len(ms)
	for i, k := range killed {
		if k {
			rep.Killed++
		} else {
			rep.Survivors = append(rep.Survivors, fmt.Sprintf("%s: %s", ws[ms[i].w].Name, ms[i].site))
		}
	}
	sort.Strings(rep.Survivors)
	return err
}

// each calls f for 0..n-1 on as many explorers as there are workers.
func (r *Runner) each(stage string, n int, f func(x *explorer, i int) error) error {
	var next, done atomic.Int64
	var mu sync.Mutex
	var first error
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var xs []*explorer
	for range max(1, min(r.Workers, n)) {
		x, err := newExplorer(r.Config)
		if err != nil {
			return err
		}
		xs = append(xs, x)
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer x.close()
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := f(x, i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
				done.Add(1)
			}
		}()
	}
	var tick sync.WaitGroup
	tick.Add(1)
	go func() {
		defer tick.Done()
		t := time.NewTicker(time.Second / 4)
		defer t.Stop()
		last, since := int64(-1), time.Now()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
			}
			s := r.Config.States.Load()
			if r.Progress != nil {
				r.Progress(stage, int(done.Load()), n, int(s))
			}
			if now := s + done.Load(); now != last {
				last, since = now, time.Now()
			} else if r.Stuck > 0 && time.Since(since) > r.Stuck && r.Hang != nil {
				for _, x := range xs {
					if p := x.doing.Load(); p != nil {
						r.Hang(*p)
					}
				}
				since = time.Now()
			}
		}
	}()
	wg.Wait()
	close(stop)
	tick.Wait()
	return first
}
