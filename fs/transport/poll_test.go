package transport

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// loadFile returns a load that reads from a file, and a function that sets the number of running
// threads in the file.
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

// TestPoller checks that a queue stays awake while requests come in quick succession, and not
// beside other threads that compute.
func TestPoller(t *testing.T) {
	const us = int64(1000)
	l, running := loadFile(t, 2)
	running("1")
	var p, other poller
	from := &source{cpus: 2}
	l.add(&p, from)
	l.add(&other, from)
	now := 1e6 * us
	check := func(want bool, what string) {
		t.Helper()
		if p.awake() != want {
			t.Errorf("%s: awake is %v", what, !want)
		}
		if asleep := p.state.Load() == pollAsleep; asleep == want {
			t.Errorf("%s: its state is asleep: %v", what, asleep)
		}
	}
	two := func(want bool, what string) { // two requests; the first is late
		t.Helper()
		now += 2000 * us
		p.came(now)
		check(false, "a late one, "+what)
		p.came(now + 1)
		now++
		check(want, what)
	}
	check(false, "before any request")
	p.came(now)
	check(false, "after the first")
	now += 200 * us
	p.came(now)
	check(false, "after a second that came late")
	two(true, "after two close together")
	p.waits(now)
	p.yielded(now+198*us, now+198*us, now+199*us)
	check(true, "before it has looked long enough")
	p.yielded(now+199*us, now+199*us, now+200*us)
	check(false, "when nothing came for long enough")
	two(true, "to wait for the end of a long one")
	now += 3000 * us // the request took so long
	p.waits(now)
	check(true, "and it waits for the next from then on")
	p.came(now + 199*us)
	check(true, "which is not late")
	other.came(now + 300*us)
	p.waits(now + 199*us)
	p.yielded(now+499*us, now+499*us, now+499*us)
	check(true, "while another gets requests")
	p.yielded(now+500*us, now+500*us, now+500*us)
	check(false, "when the other does not, either")
	other.last.Store(now + 2000*us)
	p.came(now + 2100*us)
	check(true, "after a request of another")
	now += 2100 * us
	running("2") // it and one other
	two(true, "beside another, on two CPUs")
	running("3")
	two(false, "beside two others")
	other.state.Store(pollAwake)
	two(false, "before the load is asked again")
	running("3")
	two(true, "beside one that waits awake and one that computes")
	running("4")
	two(false, "beside one that waits awake and two that compute")
	running("1")
	p.waits(now)
	p.yielded(now, now, now+500*us)
	check(false, "when others have had the CPU until it was too late")
	two(true, "when that was not for long")
	now += 10 * us
	p.waits(now)
	other.last.Store(now + 400*us) // although there are requests
	p.yielded(now, now, now+501*us)
	check(false, "when others have had the CPU for long")
	two(false, "while they have it")
	now += 46000 * us
	two(false, "for a hundred times as long")
	two(true, "later")

	running("1")
	from.cpus = 3 // one CPU has no poller
	now += 2000 * us
	other.came(now)
	p.came(now + 1)
	check(false, "after a request of another, and there are CPUs without any")
	from.cpus = 2
	now += 2000 * us
	other.came(now)
	p.came(now + 1)
	check(true, "after a request of another")
	now++
	from.cpus = 5
	var third, fourth, fifth poller
	for _, o := range []*poller{&third, &fourth, &fifth} {
		l.add(o, from)
		o.state.Store(pollAwake)
	}
	now += 2000 * us
	other.came(now)
	p.came(now + 1)
	check(false, "after a request of one of many others")
	two(true, "when three wait awake")
	other.came(now + 199*us)
	p.waits(now)
	p.yielded(now, now+200*us, now+201*us)
	check(false, "while one of many others gets requests")
	other.state.Store(pollAwake)
	two(false, "when four wait awake")
	other.state.Store(pollServing)
	two(true, "when one of them has got a request")
	other.state.Store(pollAwake)
	p.came(now + 1)
	check(true, "when it waits again, and this one is awake already")

	var never poller
	never.came(now)
	never.came(now + 1)
	if never.awake() {
		t.Error("awake without a load")
	}
}

// TestPollerLook checks that a polling thread leaves requests to the threads of the CPUs where they
// are made.
func TestPollerLook(t *testing.T) {
	const us = int64(1000)
	l, running := loadFile(t, 2)
	running("1")
	var p, other, ring poller
	from := &source{cpus: 2}
	l.add(&p, from)
	l.add(&other, from)
	l.add(&ring, &source{cpus: 2})
	now := 1e6 * us
	for _, p := range []*poller{&p, &ring} {
		p.came(now)
		p.came(now)
		p.waits(now)
		if p.state.Load() != pollAwake {
			t.Error("its state is not awake")
		}
	}
	check := func(p *poller, took int64, want bool, what string) {
		t.Helper()
		if look := p.yielded(now, now+10*us, now+10*us+took); look != want || !p.awake() {
			t.Errorf("%s: to look is %v, awake is %v", what, look, p.awake())
		}
	}
	check(&p, us, true, "while another sleeps")
	check(&ring, us, true, "where there is no other")
	for _, up := range []uint32{pollServing, pollAwake} {
		other.state.Store(up)
		check(&p, us, false, "while the other is up")
		check(&p, us+1, true, "when another thread ran here")
		from.cpus = 3
		check(&p, us, true, "while the other is up, and a CPU has none")
		from.cpus = 2
		check(&ring, us, true, "where there is no other, and elsewhere there is")
	}
	if p.yielded(now, now+50*us-1, now+50*us) {
		t.Error("it looks too early, while the other is up")
	}
	if !p.yielded(now, now+50*us, now+50*us+1) {
		t.Error("it does not look, although no other thread ran here for long")
	}
	begin := clock()
	p.came(begin)
	p.came(begin)
	for p.awake() { // no request comes
		p.idle()
	}
	if took := clock() - begin; took < 200*us {
		t.Errorf("it sleeps after %d ns", took)
	}
	p.came(clock())
	if p.state.Load() == pollAwake {
		t.Error("its state is awake when a request has come")
	}
}

// TestRunning checks the parsing of /proc/loadavg. Malformed text must not make a queue poll.
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
