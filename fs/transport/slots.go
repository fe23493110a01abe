package transport

import "sync"

// slots decides which cold requests run. One user's may take half of the CPUs, and all together as many
// as there are; others wait until one has ended, and then the users have their turns. So what
// one user asks for, however much it is, costs the others one CPU of two, and they need not
// wait for more than the requests that run.
//
// A request's life: submitted -> waiting (maybe not at all) -> running -> ended. While it runs it
// may be away (Slot.Wait), as often as it wants.
type slots struct {
	total, each int // requests that run at a time: of all users, of one

	mu      sync.Mutex // protects what follows
	running int
	users   map[uint32]*tenant
	turn    []*tenant // who has requests that wait, the next one first
}

// tenant is a user with cold requests.
type tenant struct {
	uid     uint32
	waiting []func(*Slot)
	running int
	all     int // waiting, running or away
}

// Slot is what a request that runs has taken. A nil one is of a request that is not counted.
type Slot struct {
	s *slots
	t *tenant
}

func newSlots(cpus int) *slots {
	return &slots{total: cpus, each: max(1, cpus/2), users: map[uint32]*tenant{}}
}

// submit has job run by a goroutine, when it is its turn.
func (s *slots) submit(uid uint32, job func(*Slot)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.users[uid]
	if t == nil {
		t = &tenant{uid: uid}
		s.users[uid] = t
	}
	t.all++
	if t.waiting = append(t.waiting, job); len(t.waiting) == 1 {
		s.turn = append(s.turn, t)
	}
	s.dispatchLocked()
}

// dispatchLocked begins what may run. Called with mu held.
func (s *slots) dispatchLocked() {
	for i := 0; i < len(s.turn) && s.running < s.total; {
		t := s.turn[i]
		if t.running >= s.each {
			i++
			continue
		}
		job := t.waiting[0]
		t.waiting[0] = nil
		t.waiting = t.waiting[1:]
		s.turn = append(s.turn[:i], s.turn[i+1:]...)
		if len(t.waiting) > 0 {
			s.turn = append(s.turn, t)
		}
		t.running++
		s.running++
		go func() {
			slot := Slot{s, t}
			defer slot.end()
			job(&slot)
		}()
	}
}

func (k *Slot) end() {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	k.leaveLocked()
	if k.t.all--; k.t.all == 0 {
		delete(k.s.users, k.t.uid)
	}
	k.s.dispatchLocked()
}

func (k *Slot) leaveLocked() {
	k.t.running--
	k.s.running--
}

// Wait calls f, which waits for what others do, and lets other requests run meanwhile. It goes on at
// once when f has returned, however many run then: the request may hold what they wait for.
func (k *Slot) Wait(f func()) {
	if k == nil {
		f()
		return
	}
	k.s.mu.Lock()
	k.leaveLocked()
	k.s.dispatchLocked()
	k.s.mu.Unlock()
	defer func() {
		k.s.mu.Lock()
		k.t.running++
		k.s.running++
		k.s.mu.Unlock()
	}()
	f()
}
