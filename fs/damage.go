package fs

import (
	"errors"
	"sync"
	"sync/atomic"
)

// damage is what metadata was found damaged since the mount. Each place is logged once; from the
// first on the filesystem is unmounted as one that fsck has to look at.
type damage struct {
	found atomic.Bool
	// unfinished: something was left on media for the next mount to finish, which must read all
	// inodes to find it.
	unfinished atomic.Bool

	mu     sync.Mutex
	logged map[string]bool // protected by mu; at most damageLogged
}

// damageLogged is how many messages about damage one mount logs.
const damageLogged = 100

// met notes an error if it is that of damaged metadata, and returns it. What the mount itself meets
// makes it fail.
func (fs *FS) met(err error) error {
	if err == nil || !fs.background.started() || !errors.Is(err, ErrNeedsFsck) {
		return err
	}
	d := &fs.damage
	d.found.Store(true)
	d.mu.Lock()
	n, again := len(d.logged), d.logged[err.Error()]
	if !again && n < damageLogged {
		if d.logged == nil {
			d.logged = map[string]bool{}
		}
		d.logged[err.Error()] = true
	}
	d.mu.Unlock()
	if !again && n < damageLogged {
		fs.warn("%v", err)
	}
	return err
}
