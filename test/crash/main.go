// Command crash runs the crash explorer (docs/crash.md). It crashes workloads at every fence:
// single operations, pairs and triples of operations, operations that run at once, and others. It
// also runs a sample of mutants, which the explorer must notice.
//
//	go run ./test/crash [--json] [--full] [--mutate] [--workload NAME [--state N]]
//
// It exits 1 if the filesystem is wrong after the recovery of a crash state, and 2 if it could not
// run.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/crash/explore"
)

func main() { os.Exit(run()) }

func run() int {
	cfg := explore.DefaultConfig()
	var (
		asJSON   = flag.Bool("json", false, "print the result as JSON")
		workload = flag.String("workload", "", "run only workloads whose whole name matches this regular expression")
		list     = flag.Bool("list", false, "list the workloads")
		mutants  = flag.Int("mutants", 40, "number of mutants to try, chosen by seed; 0: none")
		mutate   = flag.Bool("mutate", false, "try every mutant and list the survivors")
		full     = flag.Bool("full", false, "every workload, higher limits, and all mutants: hours")
		workers  = flag.Int("workers", runtime.GOMAXPROCS(0), "number of explorers that run at once")
		verbose  = flag.Bool("v", false, "print a line for every workload")
		worker   = flag.Bool("worker", false, "answer jobs from standard input, as the workers of this command do")
	)
	flag.IntVar(&cfg.State, "state", -1, "judge only this state of the workload")
	flag.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "seed of all random choices")
	flag.IntVar(&cfg.Nested, "nested", cfg.Nested, "crash the recovery of one state in this many; 0: never")
	flag.IntVar(&cfg.DeleteAll, "delete-all", cfg.DeleteAll, "delete everything in one state in this many; 0: never")
	flag.Parse()
	if *worker {
		return serve()
	}
	scope := explore.DefaultScope
	if *full || *workload != "" {
		scope = explore.FullScope
	}
	if *full {
		cfg.Limits, cfg.Composed, cfg.Flags = explore.FullLimits, explore.FullComposedLimits, "--full "
		cfg.Nested, cfg.DeleteAll = 150, 8
		*mutate = true
	}
	tries := 12
	if *mutate {
		*mutants, tries = -1, 60
	}
	if *full {
		tries = 0
	}

	var chosen []explore.Workload
	wanted, err := regexp.Compile("^(?:" + *workload + ")$")
	if err != nil {
		fmt.Fprintf(os.Stderr, "crash: --workload: %v\n", err)
		return 2
	}
	for _, candidate := range explore.Workloads(cfg.Seed, scope) {
		if *workload == "" || wanted.MatchString(candidate.Name) {
			chosen = append(chosen, candidate)
		}
	}
	if len(chosen) == 0 {
		fmt.Fprintf(os.Stderr, "crash: no workload is called %q; --list names them\n", *workload)
		return 2
	}
	if *list {
		for _, picked := range chosen {
			fmt.Println(picked.Name)
		}
		return 0
	}

	runner := explore.Runner{Config: cfg, Scope: scope, Workers: *workers, Mutants: *mutants, Tries: tries, Start: start}
	line, every := "\r%-10s %3d/%d, %d states ", time.Duration(0)
	if !tty(os.Stderr) {
		line, every = "%-10s %3d/%d, %d states\n", time.Minute
	}
	last := time.Now()
	runner.Progress = func(stage string, done, total, states int) {
		if time.Since(last) >= every {
			fmt.Fprintf(os.Stderr, line, stage, done, total, states)
			last = time.Now()
		}
	}
	rep, err := runner.Run(chosen)
	if every == 0 {
		fmt.Fprintln(os.Stderr)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "crash: %v\n", err)
		return 1
	}
	for i := range rep.Failures {
		fmt.Fprintf(os.Stderr, "FAIL %v\n", &rep.Failures[i])
	}
	if *asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		enc.Encode(rep)
	} else {
		table(rep, *verbose)
	}
	if rep.Failed > 0 {
		return 1
	}
	return 0
}

// start starts this program again, as a worker with GOMAXPROCS=1.
func start() (*explore.Worker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "--worker")
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &explore.Worker{Jobs: json.NewEncoder(in), Answers: json.NewDecoder(out), Close: func() error {
		in.Close()
		return cmd.Wait()
	}}, nil
}

func serve() int {
	debug.SetGCPercent(400) // each state mounts a filesystem and leaves garbage
	debug.SetMemoryLimit(1 << 30)
	err := explore.Serve(os.Stdin, os.Stdout, func(what string) {
		fmt.Fprintf(os.Stderr, "crash: stuck for a minute: %s\n", what)
		os.Exit(1)
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "crash: %v\n", err)
		return 1
	}
	return 0
}

func tty(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func table(rep *explore.Report, verbose bool) {
	t := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
	if verbose {
		fmt.Fprintln(t, "workload\tpoints\tmade\tdistinct\trecoveries\tfailures\t")
		for _, r := range rep.Results {
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t\n", r.Workload, r.Points, r.Made, r.States, r.Nested, len(r.Failures))
		}
		fmt.Fprintln(t)
	}
	fmt.Fprintf(t, "workloads\t%d\t\n", rep.Workloads)
	fmt.Fprintf(t, "crash points\t%d\t\n", rep.Points)
	fmt.Fprintf(t, "distinct states\t%d\t\n", rep.States)
	fmt.Fprintf(t, "of crashed recoveries\t%d\t\n", rep.Nested)
	fmt.Fprintf(t, "failures\t%d\t\n", rep.Failed)
	fmt.Fprintf(t, "mutants killed\t%d of %d\t\n", rep.Killed, rep.Mutants)
	fmt.Fprintf(t, "seconds\t%.1f\t\n", rep.Seconds)
	t.Flush()
	fmt.Println()
	fmt.Fprintln(t, "what an operation costs\tfences\tlines flushed\tstored past the caches\tstored in place\t")
	for _, c := range rep.Costs {
		if verbose || c.Workload == c.Step && slices.Contains([]string{"create", "unlink", "rename", "write-4KiB-append", "write-4KiB-overwrite"}, c.Step) {
			name := c.Step
			if c.Workload != c.Step {
				name = c.Workload + ": " + c.Step
			}
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t\n", name, c.Fences, c.Flushes, c.NTLines, c.Stores)
		}
	}
	t.Flush()
	for _, s := range rep.Survivors {
		fmt.Println("survivor:", s)
	}
}
