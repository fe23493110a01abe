package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/oracle"
	"github.com/daxfsd/daxfsd/test/vm/machine"
)

var errCut = errors.New("the power was cut")

// TestPowerCut kills QEMU under load, boots again, and requires that every call that the guest had
// acknowledged is there; again and again on one region. The guest's part is TestCut of
// test/vm/guest, which describes the protocol between both.
func TestPowerCut(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-rounds %d -seed %d", *rounds, *seed)
	c := &cutter{t: t, dir: t.TempDir(), rng: rand.New(rand.NewPCG(*seed, 0)), outcomes: map[oracle.Outcome]int{}, device: nvdimm(t, 1)}
	for w := range oracle.Workers {
		c.trees[w] = oracle.New(w)
	}
	for round := range *rounds {
		start := time.Now()
		n := c.round(round, c.rng.Int64N(int64(4*time.Second)))
		t.Logf("round %d: %d calls acknowledged, and %d stores by grants so far; %.1f s", round, n, c.stored, time.Since(start).Seconds())
	}
	c.round(*rounds, 0)
	if c.stored < *rounds {
		t.Errorf("%d stores by grants in %d rounds", c.stored, *rounds)
	}
	t.Logf("%d calls and %d stores by grants acknowledged, none lost; of the calls in flight there was the %v", c.acknowledged, c.stored, c.outcomes)
}

// A cutter is the host's side of TestPowerCut.
type cutter struct {
	t      *testing.T
	dir    string
	rng    *rand.Rand
	device machine.Device
	trees  [oracle.Workers]*oracle.Tree
	flight [oracle.Workers]*oracle.Op
	stored int // number of the last store of the program with grants that is known to be durable

	acknowledged int
	outcomes     map[oracle.Outcome]int
}

// round boots the guest, which checks the last round's files and works. It cuts the guest's power
// the given time (after, in ns) after every worker had its first acknowledgement. It returns the
// number of acknowledged calls. In the last round the guest only checks.
func (c *cutter) round(round int, after int64) int {
	c.t.Helper()
	last := round == *rounds
	ctx, cut := context.WithCancelCause(c.t.Context())
	defer cut(nil)
	var out bytes.Buffer
	start := &machine.Boot{Devices: []machine.Device{c.device}, Files: map[string]string{}, Limit: 3 * time.Minute, Output: &out}
	var working sync.WaitGroup
	var ports [oracle.Workers]*port
	for worker := range oracle.Workers {
		name := filepath.Join(c.dir, fmt.Sprintf("tree.%d", worker))
		if err := c.trees[worker].Save(name); err != nil {
			c.t.Fatal(err)
		}
		start.Files[filepath.Base(name)] = name
		if c.flight[worker] != nil {
			line, err := json.Marshal(c.flight[worker])
			name := filepath.Join(c.dir, fmt.Sprintf("flight.%d", worker))
			if err == nil {
				err = os.WriteFile(name, line, 0o644)
			}
			if err != nil {
				c.t.Fatal(err)
			}
			start.Files[filepath.Base(name)] = name
		}
		working.Add(1)
		ports[worker] = &port{first: sync.OnceFunc(working.Done)}
		start.Ports = append(start.Ports, ports[worker])
	}
	working.Add(1)
	storer := &port{first: sync.OnceFunc(working.Done)}
	start.Ports = append(start.Ports, storer)
	env := []string{fmt.Sprintf("DAXFSD_CUT_ROUND=%d DAXFSD_CUT_SEED=%d DAXFSD_CUT_STORED=%d", round, *seed, c.stored)}
	if last {
		env = append(env, "DAXFSD_CUT_LAST=yes")
	} else {
		go func() {
			working.Wait()
			time.Sleep(time.Duration(after))
			cut(errCut)
		}()
	}
	code, err := boot(start, "TestCut", env).Run(ctx)
	for _, each := range append(ports[:], storer) {
		each.first() // end the goroutine that waits for all workers
	}
	switch {
	case last && err == nil && code == 0:
	case !last && errors.Is(err, errCut):
	case errors.Is(err, machine.ErrEmulator):
		c.t.Logf("round %d: once more, because %v", round, err)
		if round > 0 {
			c.decideAll(round, ports, storer, out.String())
		}
		return c.round(round, after)
	default:
		c.t.Fatalf("round %d: exit code %d, %v\n%s", round, code, err, out.String())
	}
	return c.decideAll(round, ports, storer, out.String())
}

// decideAll applies the output of all workers to their trees, and counts the stores by grants. It
// returns the number of acknowledged calls.
func (c *cutter) decideAll(round int, ports [oracle.Workers]*port, storer *port, out string) (n int) {
	c.t.Helper()
	if err := c.addStores(storer.String()); err != nil {
		c.t.Fatalf("round %d: %v\n%s", round, err, out)
	}
	for w := range oracle.Workers {
		if ports[w].Len() == 0 { // the emulator died before this worker began
			continue
		}
		k, err := c.decide(w, ports[w].String())
		if err != nil {
			c.t.Fatalf("round %d, worker %d: %v\n%s", round, w, err, out)
		}
		n += k
	}
	c.acknowledged += n
	return n
}

// decide applies the output of worker w's port to the worker's tree. It returns the number of
// acknowledged calls.
func (c *cutter) decide(w int, said string) (n int, err error) {
	first, log, ok := strings.Cut(said, "\n")
	outcome, is := strings.CutPrefix(first, "= ")
	if !ok || !is {
		return 0, fmt.Errorf("it began with %q, not with the outcome of the call in flight", first)
	}
	if f := c.flight[w]; f != nil {
		c.outcomes[oracle.Outcome(outcome)]++
		if oracle.Outcome(outcome) != oracle.Undone {
			c.trees[w].Apply(*f, f.Len)
		}
	}
	name := filepath.Join(c.dir, "log")
	if err := os.WriteFile(name, []byte(log), 0o644); err != nil {
		return 0, err
	}
	n, c.flight[w], err = c.trees[w].Replay(name)
	return n, err
}

// addStores adds the stores that the log of the program with grants contains: they follow one
// another.
func (c *cutter) addStores(log string) error {
	for line := range strings.Lines(log) {
		number, ended := strings.CutPrefix(line, "! ")
		number, _, whole := strings.Cut(number, " ")
		if !ended || !whole || !strings.HasSuffix(line, "\n") {
			continue
		}
		if n, err := strconv.Atoi(number); err != nil || n != c.stored+1 {
			return fmt.Errorf("after store %d by a grant its program said %q", c.stored, line)
		}
		c.stored++
	}
	return nil
}

// A port keeps the output of a worker, and calls first at its first acknowledgement.
type port struct {
	strings.Builder
	began bool
	first func()
}

func (p *port) Write(b []byte) (int, error) {
	n, err := p.Builder.Write(b)
	if !p.began && strings.Contains(p.String(), "\n! ") {
		p.began = true
		p.first()
	}
	return n, err
}
