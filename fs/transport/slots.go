package transport

import "sync"

// slots decides which slow requests run. One request of each user may always run. More may run
// while there are CPUs for all that run; one user gets at most half as many as there are CPUs, but
// at least two. The other requests wait until one has ended, and the users then take turns. So no
// user's requests wait for another user's requests to end, however long and many those are.
//
// A request's states: submitted -> waiting (maybe skipped) -> running -> ended. A running request
// may be away (Slot.Wait) any number of times.
type slots struct {
	// total and each are the numbers of requests that may run at a time: of all users, and of one
	// user. Each user may have one request beyond total.
	total, each int

	mu      sync.Mutex // protects the following fields
	running int
	users   map[uint32]*tenant
	turn    []*tenant // the users with waiting requests, the next one first
}

// tenant is a user with slow requests.
type tenant struct {
	uid     uint32
	waiting []func(*Slot)
	running int
	all     int // requests that are waiting, running or away
}

// Slot is the right to run that a running request holds. A nil Slot belongs to a request that is
// not counted.
type Slot struct {
	s *slots
	t *tenant
}

func newSlots(cpus int) *slots {
	each := max(2, cpus/2)
	return &slots{total: max(each, cpus), each: each, users: map[uint32]*tenant{}}
}

// submit runs job on a goroutine when it is the user's turn.
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

// dispatchLocked starts the requests that may run. The caller holds s.mu.
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

// end gives up the slot when the request has ended.
func (k *Slot) end() {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	k.leaveLocked()
	if k.t.all--; k.t.all == 0 {
		delete(k.s.users, k.t.uid)
	}
	k.s.dispatchLocked()
}

// leaveLocked stops counting the request as running. The caller holds k.s.mu.
func (k *Slot) leaveLocked() {
	k.t.running--
	k.s.running--
}

// Wait calls f, which waits for other requests or threads, and lets other requests run meanwhile.
// The request continues at once when f has returned, however many run then, because it may hold a
// lock that those wait for.
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
