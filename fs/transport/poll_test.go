package transport

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// loadFile is a load of a file that says how many threads run, and what changes that.
func loadFile(t *testing.T, cpus int) (*load, func(running string)) {
	f, err := os.Create(filepath.Join(t.TempDir(), "loadavg"))
	if err != nil {
		t.Fatal(err)
	}
	l := &load{cpus: cpus, file: f}
	t.Cleanup(l.close)
	return l, func(running string) {
		t.Helper()
		if _, err := f.WriteAt([]byte("0.20 0.18 0.12 "+running+"/80 11206\n"), 0); err != nil {
			t.Fatal(err)
		}
		l.check.Store(0)
	}
}

// TestPoller: a queue stays awake while requests come close upon one another, and not beside others
// that compute.
func TestPoller(t *testing.T) {
	const us = int64(1000)
	l, running := loadFile(t, 2)
	running("1")
	var p, other poller
	peers := &pollers{}
	l.add(&p, peers)
	l.add(&other, peers)
	now := 1e6 * us
	check := func(want bool, what string) {
		t.Helper()
		if p.awake() != want {
			t.Errorf("%s: awake is %v", what, !want)
		}
	}
	two := func(want bool, what string) { // requests, the first of which is late
		t.Helper()
		now += 2000 * us
		p.came(now)
		check(false, "a late one, "+what)
		p.came(now + 1)
		now++
		check(want, what)
		if p.waits.Load() {
			t.Errorf("%s: the others are told that it waits while it serves", what)
		}
	}
	check(false, "before any request")
	p.came(now)
	check(false, "after the first")
	now += 200 * us
	p.came(now)
	check(false, "after a second that came late")
	two(true, "after two close together")
	p.wait(now)
	p.yielded(now+198*us, now+199*us)
	check(true, "before it has looked long enough")
	if !p.waits.Load() {
		t.Error("the others are not told that it waits awake")
	}
	p.yielded(now+199*us, now+200*us)
	check(false, "when nothing came for long enough")
	if p.waits.Load() {
		t.Error("the others are told that it waits awake when it sleeps")
	}
	two(true, "to wait for the end of a long one")
	now += 3000 * us // it took so long
	p.wait(now)
	check(true, "and it waits for the next from then on")
	p.yielded(now, now+10*us)
	check(true, "for a while")
	p.came(now + 199*us)
	check(true, "which is not late")
	now += 199 * us
	running("2") // it and one other
	two(true, "beside another, on two CPUs")
	running("3")
	two(false, "beside two others")
	other.waits.Store(true)
	two(false, "before the load is asked again")
	running("3")
	two(true, "beside one that waits awake and one that computes")
	running("4")
	two(false, "beside one that waits awake and two that compute")
	running("1")
	two(true, "when they are gone")
	p.wait(now)
	p.yielded(now, now+500*us)
	check(false, "when others have had the CPU until it was too late")
	two(true, "when that was not for long")
	p.wait(now)
	p.yielded(now, now+501*us)
	check(false, "when others have had the CPU for long")
	two(false, "while they have it")
	now += 46000 * us
	two(false, "for a hundred times as long")
	two(true, "later")

	now += 2000 * us
	other.came(now)
	p.came(now + 1)
	check(false, "after a request of another")
	var third, fourth, fifth, ring poller
	for _, o := range []*poller{&third, &fourth, &fifth} {
		l.add(o, peers)
		o.waits.Store(true)
	}
	two(true, "when three others wait awake")
	other.waits.Store(true)
	two(false, "when four others wait awake")
	l.add(&ring, &pollers{})
	ring.came(now)
	ring.came(now + 1)
	if !ring.awake() {
		t.Error("asleep, since those wait awake who take other requests")
	}
	other.waits.Store(false)
	two(true, "when one of them has got a request")
	other.waits.Store(true)
	p.came(now + 1)
	check(true, "when it waits again, and this one is awake already")

	var never poller
	never.came(now)
	never.came(now + 1)
	if never.awake() {
		t.Error("awake where nobody tells the load")
	}
}

// TestPollerIdle: without requests it looks for 200 us and sleeps.
func TestPollerIdle(t *testing.T) {
	l, running := loadFile(t, 2)
	running("1")
	var p poller
	l.add(&p, &pollers{})
	p.came(clock())
	p.came(clock())
	begin := clock()
	for p.awake() { // nothing comes
		p.idle()
	}
	if took := time.Duration(clock() - begin); took < pollFor && p.pause == 0 {
		t.Errorf("it sleeps after %v", took)
	}
}

// TestRunning: what /proc/loadavg says, and whatever else is there, which must not make a queue
// look.
func TestRunning(t *testing.T) {
	for text, want := range map[string]int{
		"0.20 0.18 0.12 1/80 11206\n": 1,
		"9.01 8.00 7.00 12/1234 9\n":  12,
		"0.20 0.18 0.12 0/80 11206":   math.MaxInt32,
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
	l := newLoad(1)
	if l == nil {
		t.Skip("/proc/loadavg is not the kernel's")
	}
	defer l.close()
	if n, awake := l.count(); n < 1 || n > 1<<20 || awake != 0 {
		t.Errorf("%d threads run, %d wait awake", n, awake)
	}
	if n := testing.AllocsPerRun(100, func() { l.count() }); n != 0 {
		t.Errorf("to ask allocates %v times", n)
	}
}
