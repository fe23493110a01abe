package explore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/pmem"
)

// emptyFree returns the number of free blocks of an empty filesystem.
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

// area is the byte range [off, end) of the region.
type area struct{ off, end int64 }

func (a area) has(off int64) bool { return off >= a.off && off < a.end }

// lanes returns the area of the journal's lanes.
var lanes = sync.OnceValue(func() area {
	r, err := pmem.NewMemory(regionSize)
	if err != nil {
		panic(err)
	}
	defer r.Close()
	sb, err := fs.Mkfs(r, mkfsOptions())
	if err != nil {
		panic(err)
	}
	return area{sb.LaneOff, sb.LaneOff + int64(sb.Lanes)*2*int64(sb.LaneSlot)}
})

// Report is the result of a run.
type Report struct {
	Workloads int       `json:"workloads"`
	Points    int       `json:"crash_points"`
	Made      int       `json:"states_made"` // including equal ones
	States    int       `json:"states"`
	Nested    int       `json:"recovery_states"` // those within crashed recoveries
	Failures  []Failure `json:"failed"`
	Failed    int       `json:"failures"`
	Mutants   int       `json:"mutants"`
	Killed    int       `json:"killed"`
	Survivors []string  `json:"survivors,omitempty"`
	Costs     []Cost    `json:"costs"`
	Seconds   float64   `json:"seconds"`
	Results   []Result  `json:"-"`
}

// Job asks a worker to explore a workload, or one mutant of the workload.
type Job struct {
	Workload string
	Mutant   string // "": none
}

// Answer is a worker's answer to a job. Err reports that the workload itself failed.
type Answer struct {
	Result
	Mutants []string // the workload's mutants; only in the answer to a job without a mutant
	Err     string
}

// Worker is a connection to a worker, which answers jobs one at a time.
type Worker struct {
	Jobs    *json.Encoder
	Answers *json.Decoder
	Close   func() error
}

// Runner runs workloads on several workers at once.
type Runner struct {
	Config  Config
	Scope   Scope // scope that contains the workloads
	Workers int
	// Start starts a worker that runs Serve; nil: a goroutine. Processes of one thread each are
	// faster, since none waits for another.
	Start func() (*Worker, error)
	// Mutants is the number of mutants to try, chosen by seed; < 0: all. Each is tried in up to
	// Tries workloads, until one notices it; Tries 0: in all workloads.
	Mutants, Tries int
	// Progress is called with the stage, the jobs done and in all, and the states so far; may be
	// nil.
	Progress func(stage string, done, total, states int)
}

// order is the first message to a worker, before all jobs.
type order struct {
	Config Config
	Scope  Scope
}

// Serve reads an order and then jobs from in, and writes answers to out, until in ends. It calls
// stuck if one state takes longer than a minute.
func Serve(in io.Reader, out io.Writer, stuck func(what string)) error {
	dec, enc := json.NewDecoder(in), json.NewEncoder(out)
	var ord order
	if err := dec.Decode(&ord); err != nil {
		return err
	}
	explorer, err := newExplorer(ord.Config)
	if err != nil {
		return err
	}
	defer explorer.close()
	defer explorer.watch(time.Minute, stuck)()
	byName := map[string]*Workload{}
	list := Workloads(ord.Config.Seed, ord.Scope)
	for i := range list {
		byName[list[i].Name] = &list[i]
	}
	var last string
	var rec *recording
	for {
		var job Job
		if err := dec.Decode(&job); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
		var answer Answer
		what := "recording " + job.Workload
		explorer.doing.Store(&what)
		explorer.made.Add(1)
		if found := byName[job.Workload]; found == nil {
			err = fmt.Errorf("there is no workload %s", job.Workload)
		} else if rec == nil || job.Workload != last {
			last = job.Workload
			rec, err = record(found)
		}
		if err != nil {
			answer.Err, rec, err = err.Error(), nil, nil
		} else if mut, ok := mutants(rec)[job.Mutant]; job.Mutant == "" || ok {
			// Not ok: operations that run at once may have another schedule in this recording.
			answer.Result = explorer.explore(job.Workload, rec, mut)
			if job.Mutant == "" {
				answer.Mutants = slices.Sorted(maps.Keys(mutants(rec)))
			}
		}
		explorer.doing.Store(nil)
		if err := enc.Encode(&answer); err != nil {
			return err
		}
	}
}

// watch calls stuck when the explorer spends longer than d on one state. The returned function ends
// the watch.
func (x *explorer) watch(d time.Duration, stuck func(what string)) (end func()) {
	stop := make(chan struct{})
	go func() {
		t := time.NewTicker(d)
		defer t.Stop()
		last := int64(-1)
		for {
			select {
			case <-stop:
				return
			case <-t.C:
			}
			now := x.made.Load()
			if p := x.doing.Load(); p != nil && now == last {
				stuck(*p)
			}
			last = now
		}
	}()
	return func() { close(stop) }
}

// goroutine starts a worker within this process.
func goroutine() (*Worker, error) {
	jr, jw := io.Pipe()
	ar, aw := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := Serve(jr, aw, func(what string) { panic("stuck for a minute: " + what) })
		aw.CloseWithError(err)
		jr.CloseWithError(io.ErrClosedPipe)
		done <- err
	}()
	return &Worker{json.NewEncoder(jw), json.NewDecoder(ar), func() error { jw.Close(); return <-done }}, nil
}

// Run explores the workloads and, if none failed, tries the mutants.
func (r *Runner) Run(ws []Workload) (*Report, error) {
	start := time.Now()
	rep := &Report{Workloads: len(ws), Failures: []Failure{}}
	if r.Start == nil {
		r.Start = goroutine
	}
	jobs := make([]Job, len(ws))
	for i := range ws {
		jobs[i].Workload = ws[i].Name
	}
	answers, err := r.ask("exploring", jobs)
	in := map[string][]string{} // workloads that have each mutant
	for i := range answers {
		a := &answers[i]
		rep.Points += a.Points
		rep.States += a.States + a.Nested
		rep.Nested += a.Nested
		rep.Made += a.Made
		rep.Failures = append(rep.Failures, a.Failures...)
		rep.Results = append(rep.Results, a.Result)
		rep.Costs = append(rep.Costs, a.Costs...)
		for _, m := range a.Mutants {
			in[m] = append(in[m], ws[i].Name)
		}
	}
	rep.Failed = len(rep.Failures)
	if err == nil && r.Mutants != 0 && rep.Failed == 0 {
		err = r.mutate(in, rep)
	}
	rep.Seconds = time.Since(start).Seconds()
	return rep, err
}

// mutate checks that the explorer notices each mutant. It tries the mutant's workloads (in) one
// after the other, until one fails.
func (r *Runner) mutate(in map[string][]string, rep *Report) error {
	ms := slices.Sorted(maps.Keys(in))
	if r.Mutants > 0 {
		g := rnd(r.Config.Seed)
		for len(ms) > r.Mutants {
			i := g.n(len(ms))
			ms[i] = ms[len(ms)-1]
			ms = ms[:len(ms)-1]
		}
	}
	rep.Mutants = len(ms)
	for try := 0; len(ms) > 0; try++ {
		var jobs []Job
		var rest []string
		for _, m := range ms {
			if try < len(in[m]) && (r.Tries == 0 || try < r.Tries) {
				jobs = append(jobs, Job{in[m][try], m})
			} else {
				rep.Survivors = append(rep.Survivors, fmt.Sprintf("%s (%d of %d workloads)", m, try, len(in[m])))
			}
		}
		answers, err := r.ask("mutants", jobs)
		if err != nil {
			return err
		}
		for i := range answers {
			if len(answers[i].Failures) > 0 {
				rep.Killed++
			} else {
				rest = append(rest, jobs[i].Mutant)
			}
		}
		ms = rest
	}
	sort.Strings(rep.Survivors)
	return nil
}

// ask distributes the jobs to workers. It returns the answers in the jobs' order, and the first
// error.
func (r *Runner) ask(stage string, jobs []Job) ([]Answer, error) {
	answers := make([]Answer, len(jobs))
	var mu sync.Mutex
	var next, done, states int
	var first error
	fail := func(err error) {
		if first == nil {
			first = err
		}
	}
	work := func(worker *Worker) error {
		if err := worker.Jobs.Encode(order{r.Config, r.Scope}); err != nil {
			return err
		}
		for {
			mu.Lock()
			i := next
			next++
			if r.Progress != nil {
				r.Progress(stage, done, len(jobs), states)
			}
			mu.Unlock()
			if i >= len(jobs) {
				return nil
			}
			err := worker.Jobs.Encode(&jobs[i])
			if err == nil {
				err = worker.Answers.Decode(&answers[i])
			}
			if err != nil {
				return fmt.Errorf("%s: the worker died: %w", jobs[i].Workload, err)
			}
			mu.Lock()
			done++
			states += answers[i].States + answers[i].Nested
			if text := answers[i].Err; text != "" {
				fail(errors.New(text))
			}
			mu.Unlock()
		}
	}
	var wg sync.WaitGroup
	for range max(1, min(r.Workers, len(jobs))) {
		worker, err := r.Start()
		if err != nil {
			mu.Lock()
			fail(err)
			next = len(jobs)
			mu.Unlock()
			break
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			err := work(worker)
			if closeErr := worker.Close(); err == nil {
				err = closeErr
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				fail(err)
			}
		}()
	}
	wg.Wait()
	return answers, first
}
