package transport

import "sync"

// slots decides which slow requests run. One of a user's may always run, and more as long as there
// are CPUs for all that run, of one user half as many as there are CPUs, but two at least. The
// others wait until one has ended, and then the users have their turns. So no user's requests wait
// for another's to end, however long those take or however many they are.
//
// A request's life: submitted -> waiting (maybe not at all) -> running -> ended. While it runs it
// may be away (Slot.Wait), as often as it wants.
type slots struct {
	total, each int // requests that run at a time: of all users, of one; each user may have one beyond total

	mu      sync.Mutex // protects what follows
	running int
	users   map[uint32]*tenant
	turn    []*tenant // who has requests that wait, the next one first
}

// tenant is a user with slow requests.
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
	each := max(2, cpus/2)
	return &slots{total: max(each, cpus), each: each, users: map[uint32]*tenant{}}
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
	for i := 0; i < len(s.turn); {
		t := s.turn[i]
		if t.running > 0 && (t.running >= s.each || s.running >= s.total) {
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

// Wait calls f, which waits for what others do, and lets other requests run meanwhile. It goes on
// at once when f has returned, however many run then: the request may hold what they wait for.
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
