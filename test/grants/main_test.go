package grants

import (
	"flag"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

var (
	rounds   = flag.Int("rounds", 40, "number of rounds of TestClientsKilled; in each, four clients are killed")
	restarts = flag.Int("restarts", 5, "number of rounds of TestDaemonKilled")
	ops      = flag.Int("ops", 500, "number of operations of each actor of TestStress")
	passes   = flag.Int("passes", 5000, "number of grants of TestLeasePassedOn")
	seed     = flag.Uint64("seed", 0, "seed of what the tests do at random; 0: from the clock")
)

func TestMain(m *testing.M) {
	harness.Main(m, harness.Children{
		"steps": stepper, "load": loader, "hold": holder, "actor": actor, "pass": passer,
		"sender": sender, "locker": locker, "hoarder": hoarder, "garbage": garbage,
	})
}

// seeded returns the seed of a test, which it logs.
func seeded(t *testing.T) uint64 {
	t.Helper()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", *seed)
	return *seed
}

// ends waits until the daemon keeps no lease any more, and returns how long that took. A sweep runs
// each second.
func ends(t *testing.T, m *harness.Mount) time.Duration {
	t.Helper()
	start := time.Now()
	for {
		s := m.Stats()
		if s.LeasedBytes == 0 && s.DeferredFrees == 0 {
			return time.Since(start)
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("after %v %d bytes are leased, and %d bytes of no file are in use", time.Since(start), s.LeasedBytes, s.DeferredFrees)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// within fails the test if what was to take a second or two took longer. The machine may be busy.
func within(t *testing.T, took time.Duration, what string) {
	t.Helper()
	if took > 3*time.Second {
		t.Errorf("%s took %v, expected a second or two", what, took)
	}
}

// number is an argument of a child.
func number(s string) (n uint64) {
	for _, c := range s {
		n = n*10 + uint64(c-'0')
	}
	return n
}
