package kill

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fsck"
	"github.com/daxfsd/daxfsd/test/harness"
	"github.com/daxfsd/daxfsd/test/oracle"
)

var (
	rounds = flag.Int("rounds", 15, "number of rounds; in each the daemon is killed under load")
	seed   = flag.Uint64("seed", 0, "seed of the workers' calls and of the moments when the daemon is killed; 0: from the clock")
	keep   = flag.String("keep", "", "copy the region and the logs to this directory if the test fails")
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Children{"work": oracle.Work})
}

// killTest is the state of TestKill9 and TestJudge.
type killTest struct {
	*harness.Mount
	t      *testing.T
	seed   uint64
	rng    *rand.Rand // for the choices of the test; the workers have generators of their own
	round  int
	bursts int
	dirs   []string // directories below the root
	trees  [oracle.Workers]*oracle.Tree
	// logs are those of the last burst. flight holds its calls that were not acknowledged, by
	// worker.
	logs   [oracle.Workers]string
	flight [oracle.Workers]*oracle.Op

	acknowledged int
	outcomes     map[oracle.Outcome]int
	kills        int
	short        int // number of writes that were acknowledged in part
}

// begin mounts a new filesystem and creates the workers' directories.
func begin(t *testing.T, seed uint64, limit time.Duration) *killTest {
	t.Helper()
	m := &killTest{
		Mount: harness.New(t, oracle.RegionSize, limit), t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 0)),
		outcomes: map[oracle.Outcome]int{},
	}
	t.Cleanup(m.saveFailed)
	m.dirs = []string{oracle.Shared}
	for w := range oracle.Workers {
		m.trees[w] = oracle.New(w)
		m.dirs = append(m.dirs, oracle.WorkerDir(w))
	}
	for _, dir := range m.dirs {
		if err := os.Mkdir(m.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// TestKill9 kills the daemon under load, in recovery and in unmount.
func TestKill9(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-rounds %d -seed %d", *rounds, *seed)
	run := begin(t, *seed, 2*time.Minute+time.Duration(*rounds)*20*time.Second)
	begin := time.Now()
	run.Umount()
	down := time.Since(begin)
	fresh := run.check()
	up := run.Up()
	for run.round = range *rounds {
		start, was := time.Now(), run.acknowledged
		run.load()
		rep := run.Fsck()
		if rep.Clean {
			t.Fatal("killed, and fsck says that it was unmounted")
		}
		said := ""
		if run.round%3 == 1 {
			for range 1 + run.rng.IntN(3) {
				after := run.upTo(up)
				serving := run.KillUp(after)
				said += fmt.Sprintf("; killed %.1f ms after its start (serving: %v)", after.Seconds()*1000, serving)
				run.kills++
				run.Fsck()
			}
		}
		up = run.Up()
		run.judge()
		if run.round%3 == 2 {
			run.burst(200, func() {})
			after := run.upTo(down)
			unmounted := run.KillUmount(after)
			said += fmt.Sprintf("; killed %.1f ms after umount began (unmounted: %v)", after.Seconds()*1000, unmounted)
			run.kills++
			run.Fsck()
			run.Up()
			run.judge()
		}
		begin = time.Now()
		run.Umount()
		down = time.Since(begin)
		clean := run.check()
		run.Up()
		if run.round%3 == 0 {
			run.judge() // a clean mount shows the same files
		}
		t.Logf("round %d: %d calls acknowledged, %d orphans, %d journal records; %d%% full%s; %.1f s", run.round,
			run.acknowledged-was, rep.Orphans, rep.JournalRecords, clean.UsedBlocks*100/(clean.UsedBlocks+clean.FreeBlocks), said, time.Since(start).Seconds())
	}
	t.Logf("%d calls acknowledged, none lost; the daemon killed %d times; of the calls in flight there was the %v, and of %d writes a part was acknowledged",
		run.acknowledged, run.kills, run.outcomes, run.short)
	for _, dir := range run.dirs {
		if err := os.RemoveAll(run.Path(dir)); err != nil {
			t.Fatal(err)
		}
	}
	run.Down()
	if rep := run.Fsck(); rep.DataBlocks != 0 || rep.UsedBlocks > fresh.UsedBlocks {
		t.Errorf("with everything deleted %d blocks are used, %d of them data; %d when it was new", rep.UsedBlocks, rep.DataBlocks, fresh.UsedBlocks)
	}
}

// upTo returns a random duration below d.
func (m *killTest) upTo(d time.Duration) time.Duration { return time.Duration(m.rng.Int64N(int64(d))) }

// load lets the workers work and kills the daemon: after a random time, or by the clock tick that
// finds it running after it has used some CPU time.
func (m *killTest) load() {
	after := m.upTo(200 * time.Millisecond)
	if m.rng.IntN(4) > 0 { // compaction takes a step every two seconds
		after = m.upTo(3 * time.Second)
	}
	kill := func() { time.Sleep(after); m.Kill9() }
	if m.rng.IntN(2) == 0 {
		kill = m.Kill9AtWork
	}
	m.burst(0, kill)
	m.kills++
}

// burst lets each worker make the given number of calls, or as many as it can (0). It calls
// meanwhile when all workers have begun, and at the end applies their logs to the trees.
func (m *killTest) burst(calls int, meanwhile func()) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m.bursts++
	var cmds [oracle.Workers]*exec.Cmd
	var out [oracle.Workers]bytes.Buffer
	for worker := range oracle.Workers {
		state := filepath.Join(m.Dir, fmt.Sprintf("tree.%d", worker))
		if err := m.trees[worker].Save(state); err != nil {
			m.t.Fatal(err)
		}
		m.logs[worker] = filepath.Join(m.Dir, fmt.Sprintf("calls.%d.%d", m.bursts, worker))
		cmds[worker] = harness.Child(ctx, "work", m.Mountpoint, strconv.Itoa(worker), state, m.logs[worker],
			strconv.FormatUint(m.seed, 10), strconv.Itoa(m.bursts), strconv.Itoa(calls))
		cmds[worker].Stdout, cmds[worker].Stderr = &out[worker], &out[worker]
		if err := cmds[worker].Start(); err != nil {
			m.t.Fatal(err)
		}
	}
	for worker := range oracle.Workers {
		for ctx.Err() == nil {
			if info, err := os.Stat(m.logs[worker]); err == nil && info.Size() > 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	meanwhile()
	for worker := range oracle.Workers {
		if err := cmds[worker].Wait(); err != nil {
			m.t.Errorf("round %d, worker %d: %v: %s", m.round, worker, err, out[worker].Bytes())
			continue
		}
		n, flight, err := m.trees[worker].Replay(m.logs[worker])
		if err == nil && calls > 0 && (n != calls || flight != nil) {
			err = fmt.Errorf("%d calls acknowledged, want %d", n, calls)
		}
		if err != nil {
			m.t.Errorf("round %d, worker %d: %v", m.round, worker, err)
		}
		m.acknowledged += n
		m.flight[worker] = flight
	}
	if m.t.Failed() {
		m.t.FailNow()
	}
}

// judge compares the mounted filesystem with the trees.
func (m *killTest) judge() {
	m.t.Helper()
	dirs := uint64(2)
	err := m.shared(&dirs)
	var st unix.Stat_t
	if err == nil {
		err = unix.Stat(m.Path(oracle.Shared), &st)
	}
	if err == nil && uint64(st.Nlink) != dirs {
		err = fmt.Errorf("%s has %d links, want %d", oracle.Shared, st.Nlink, dirs)
	}
	if err != nil {
		m.t.Errorf("round %d: %v", m.round, err)
	}
	var wg sync.WaitGroup
	var outcomes [oracle.Workers]oracle.Outcome
	for w := range oracle.Workers {
		wg.Go(func() {
			o, err := m.trees[w].Judge(m.Mountpoint, w, m.flight[w])
			if err != nil {
				m.t.Errorf("round %d, worker %d: %v", m.round, w, err)
			}
			outcomes[w] = o
		})
	}
	wg.Wait()
	for w, o := range outcomes {
		if f := m.flight[w]; f != nil {
			m.outcomes[o]++
			if f.Skip > 0 {
				m.short++
			}
		}
		m.flight[w] = nil
	}
	if m.t.Failed() {
		m.t.FailNow()
	}
}

// shared requires that every name in the shared directory belongs to a worker, and adds the number
// of directories to dirs.
func (m *killTest) shared(dirs *uint64) error {
	entries, err := os.ReadDir(m.Path(oracle.Shared))
	for _, e := range entries {
		var w, round, n int
		if k, _ := fmt.Sscanf(e.Name(), "w%d-%d.%d", &w, &round, &n); k != 3 || w >= oracle.Workers {
			return fmt.Errorf("%s/%s should not be there", oracle.Shared, e.Name())
		}
		if e.IsDir() {
			*dirs++
		}
	}
	return err
}

// check requires that the unmounted region is clean and has as many files of each type as the
// trees.
func (m *killTest) check() fsck.Report {
	m.t.Helper()
	rep := m.Fsck()
	files, dirs, symlinks := uint64(0), uint64(2), uint64(0) // the root and the shared directory
	for _, t := range m.trees {
		files += t.Count(unix.S_IFREG)
		dirs += t.Count(unix.S_IFDIR)
		symlinks += t.Count(unix.S_IFLNK)
	}
	if !rep.Clean || rep.Files != files || rep.Dirs != dirs || rep.Symlinks != symlinks || rep.Special != 0 {
		m.t.Fatalf("round %d: unmounted, and fsck says clean: %v, %d files, %d directories, %d symbolic links, %d others; want %d, %d, %d, 0",
			m.round, rep.Clean, rep.Files, rep.Dirs, rep.Symlinks, rep.Special, files, dirs, symlinks)
	}
	return rep
}

// saveFailed copies the region and the logs of a failed test to the directory of -keep.
func (m *killTest) saveFailed() {
	if *keep == "" || !m.t.Failed() {
		return
	}
	out, err := harness.Command(time.Minute, "", nil, "cp", "-rx", "--sparse=always", m.Dir, *keep)
	m.t.Logf("the region and the logs are in %s %s (%v)", *keep, out, err)
}
