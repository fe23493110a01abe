package transport

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// loadFile is a load of a file that says how many threads run, and what changes that.
func loadFile(t *testing.T, cpus, most int) (*load, func(running string)) {
	f, err := os.Create(filepath.Join(t.TempDir(), "loadavg"))
	if err != nil {
		t.Fatal(err)
	}
	l := &load{cpus: cpus, most: most, file: f}
	t.Cleanup(l.close)
	return l, func(running string) {
		t.Helper()
		if _, err := f.WriteAt([]byte("0.20 0.18 0.12 "+running+"/80 11206\n"), 0); err != nil {
			t.Fatal(err)
		}
		l.check.Store(0)
	}
}

// TestPoller: a queue looks while requests come close upon one another, and not beside others that compute.
func TestPoller(t *testing.T) {
	const d = int64(pollFor)
	l, running := loadFile(t, 2, 2)
	running("1")
	var p, other poller
	l.add(&p)
	l.add(&other)
	now := 1000 * d
	two := func(want bool, what string) {
		t.Helper()
		now += 10 * d
		p.came(now)
		p.came(now + 1)
		if now++; p.awake() != want {
			t.Errorf("%s: awake is %v", what, !want)
		}
	}
	check := func(want bool, what string) {
		t.Helper()
		if p.awake() != want {
			t.Errorf("%s: awake is %v", what, !want)
		}
		if !want && p.looking.Load() {
			t.Errorf("%s: it sleeps, and is said to look", what)
		}
	}
	check(false, "before any request")
	p.came(now)
	check(false, "after the first")
	now += d
	p.came(now)
	check(false, "after a second that came late")
	two(true, "after two close together")
	p.looking.Store(true)
	p.yielded(now+d-2, now+d-1)
	check(true, "before it has looked long enough")
	p.yielded(now+d-1, now+d)
	check(false, "when nothing came for long enough")
	running("2") // it and one other
	two(true, "beside another, on two CPUs")
	running("3")
	two(false, "beside two others")
	other.looking.Store(true)
	running("2")
	two(true, "beside one that only looks")
	l.most = 1
	running("2")
	two(false, "beside one that looks, where only one may")
	l.most = 2
	running("3")
	two(false, "beside one that looks and one that computes")
	other.looking.Store(false)
	running("1")
	two(true, "alone")
	p.looking.Store(true)
	p.yielded(now, now+int64(pollYield)+1)
	check(false, "when others had the CPU for long")
	two(false, "while they have it")
	now += pollPause * int64(pollYield+1)
	two(true, "later")
	p.until = clock() // which has come when it has yielded
	p.yield()
	check(false, "after a look that found nothing, at the end")

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
	l := newLoad(1, 1)
	if l == nil {
		t.Skip("/proc/loadavg is not the kernel's")
	}
	defer l.close()
	if n, look := l.count(); n < 1 || n > 1<<20 || look != 0 {
		t.Errorf("%d threads run, %d look", n, look)
	}
	if n := testing.AllocsPerRun(100, func() { l.count() }); n != 0 {
		t.Errorf("to ask allocates %v times", n)
	}
}
