package transport

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// TestPoller: a queue looks while requests come close upon one another, and not beside others that compute.
func TestPoller(t *testing.T) {
	const d, again = int64(pollFor), int64(loadFor)
	file := filepath.Join(t.TempDir(), "loadavg")
	running := func(s string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("0.20 0.18 0.12 "+s+"/80 11206\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	running("1")
	l := newLoad(file, 2)
	defer l.close()
	var p, other poller
	l.add(&p, 1)
	l.add(&other, 0)
	now := 10 * again
	check := func(want bool, what string) {
		t.Helper()
		if p.awake() != want {
			t.Errorf("%s: awake is %v", what, !want)
		}
	}
	check(false, "before any request")
	p.came(now)
	check(false, "after the first")
	now += d + 1
	p.came(now)
	check(false, "after a second that came late")
	now += d / 2
	p.came(now)
	check(true, "after two close together")
	p.idle(now + d - 1)
	check(true, "before it has looked long enough")
	p.idle(now + d)
	check(false, "when nothing came for long enough")
	now += again
	running("2") // it and one other
	p.came(now)
	p.came(now + 1)
	check(true, "beside another, on two CPUs")
	now += again
	p.came(now)
	p.came(now + 1)
	check(true, "still")
	running("3")
	p.came(now + 2)
	check(true, "before it asks again")
	now += again
	p.came(now)
	p.came(now + 1)
	check(false, "beside two others")
	other.looking.Store(true)
	now += again
	p.came(now)
	p.came(now + 1)
	check(true, "beside one, and one that only looks")
	p.most = 0
	now += again
	p.came(now)
	p.came(now + 1)
	check(false, "where only one may look")
	p.most = 1
	other.looking.Store(false)
	running("2")
	now += again
	p.came(now)
	p.came(now + 1)
	check(true, "when one of them has gone")
	running("3")
	now += again + 1
	p.until = now + d
	p.looking.Store(true)
	p.idle(now)
	check(false, "when it is back")
	if p.looking.Load() {
		t.Error("a thread that sleeps is said to look")
	}
	p.check, p.until = 0, now+d
	p.yield()
	check(false, "beside two others, which it asks for at once")

	var never poller
	never.came(now)
	never.came(now + 1)
	if never.awake() {
		t.Error("awake where nobody tells the load")
	}
}

// TestRunning: what /proc/loadavg says, and whatever else is there, which must not make a queue look.
func TestRunning(t *testing.T) {
	for text, want := range map[string]int{
		"0.20 0.18 0.12 1/80 11206\n": 1,
		"9.01 8.00 7.00 12/1234 9\n":  12,
		"0.20 0.18 0.12 /80":          math.MaxInt32,
		"0.20 0.18 0.12 3":            math.MaxInt32,
		"0.20 0.18 0.12 99999999999/": math.MaxInt32,
		"0.20":                        math.MaxInt32,
		"":                            math.MaxInt32,
		"0.20 0.18 0.12":              math.MaxInt32,
		"0.20 0.18 0.12 x/80 11206":   math.MaxInt32,
	} {
		if n := runningOf([]byte(text)); n != want {
			t.Errorf("%q: %d run, want %d", text, n, want)
		}
	}
	l := newLoad("/proc/loadavg", 1)
	defer l.close()
	if n := l.running(); n < 1 || n > 1<<20 {
		t.Errorf("%d threads run", n)
	}
	var p poller
	l.add(&p, 0)
	if n := testing.AllocsPerRun(100, func() { l.others(&p) }); n != 0 {
		t.Errorf("to ask allocates %v times", n)
	}
	if newLoad(filepath.Join(t.TempDir(), "none"), 1) != nil {
		t.Error("a load of no file")
	}
}
