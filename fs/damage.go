package fs

import (
	"errors"
	"sync"
	"sync/atomic"
)

// damage records the damaged metadata that was found since the mount. Each message is logged once.
// Once something is found, the unmount records that fsck must look at the filesystem.
type damage struct {
	found atomic.Bool
	// unfinished is set if an operation left something on the media for the next mount to finish.
	// That mount must read all inodes to find it.
	unfinished atomic.Bool

	mu     sync.Mutex
	logged map[string]bool // protected by mu; at most damageLogged
}

// damageLogged bounds the messages about damage that one mount logs.
const damageLogged = 100

// met records err if it reports damaged metadata, and returns it. While the mount is under way it
// records nothing: there such an error makes the mount fail.
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
