package lease

import "time"

// Info describes a grant, or blocks that a mount found leased (ID 0).
type Info struct {
	ID       uint64
	Ino      uint64 // 0: the file is gone, or not known
	Blocks   uint64
	Parts    []Part // must not be changed; of found blocks, Logical is 0
	Writable bool
	Stale    bool
	Promised bool // the program has not confirmed it
	UID, PID uint32
	Since    time.Time // of the grant; zero for found blocks
}

// List describes all grants that have not ended, and all found leases.
func (t *Table) List() (all []Info) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, g := range t.order {
		if g.state <= confirmed {
			all = append(all, Info{ID: g.ID, Ino: g.Ino, Blocks: g.Blocks(), Parts: g.Parts, Writable: g.Writable, Stale: g.stale, Promised: g.state == promised, UID: g.UID, PID: g.PID, Since: g.Since})
		}
	}
	for _, f := range t.found {
		if !f.ended.IsZero() {
			continue
		}
		all = append(all, Info{Blocks: f.n, Parts: []Part{{Block: f.block, N: f.n}}, Writable: true, Stale: true})
	}
	return all
}
