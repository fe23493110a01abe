package direct

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/pmem"
)

// lease is grants of one file whose locks are on one open file description of the region.
//
// States: promised (GRANT) -> locked -> confirmed (CONFIRM) -> ended, when desc and all mappings
// through it are gone.
type lease struct {
	conn   *conn
	region *pmem.Mapper
	desc   *os.File // nil: only mappings keep the description
	grants []*protocol.Grant
}

// leaseTries is how often a lease is tried again because the file's layout changed meanwhile.
const leaseTries = 8

// lease leases the range of q, or with whole false the first part of it that one grant holds.
//
//  1. GRANT
//  2. open the region: a new description
//  3. lock the blocks and the identity of each grant
//  4. CONFIRM
//
// Only then the caller maps, through the same description.
func (c *conn) lease(q protocol.GrantRequest, whole bool) (*lease, error) {
	for range leaseTries {
		l, err := c.tryLease(q, whole)
		if err == nil || !errors.Is(err, unix.ESTALE) {
			return l, err
		}
	}
	return nil, fmt.Errorf("%w: %s; try again when it is at rest", ErrChanging, c.file.Name())
}

// tryLease is lease without trying again: ESTALE.
func (c *conn) tryLease(q protocol.GrantRequest, whole bool) (_ *lease, err error) {
	l := &lease{conn: c}
	defer func() {
		if err != nil {
			l.end()
		}
	}()
	for end := q.Offset + q.Length; ; {
		g, err := c.grant(&q)
		if err != nil {
			return nil, err
		}
		l.grants = append(l.grants, g)
		if g.Generation != l.grants[0].Generation || g.Slot != l.grants[0].Slot {
			return nil, unix.ESTALE
		}
		if g.End >= end || !whole {
			break
		}
		q.Offset, q.Length = g.End, end-g.End
	}
	if l.region, err = c.mapper(l.grants[0]); err != nil {
		return nil, err
	}
	if l.desc, err = l.region.Open(q.Flags&protocol.Write != 0); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRegion, err)
	}
	for _, g := range l.grants {
		if err := l.lock(g); err != nil {
			return nil, err
		}
	}
	for _, g := range l.grants {
		err := c.command(protocol.IocConfirm, protocol.Command{ID: g.ID, Generation: g.Generation})
		switch {
		case errors.Is(err, unix.ENOLCK):
			return nil, fmt.Errorf("%w: the daemon does not see this process's locks; %s must be the device node or file that the daemon has opened", ErrRegion, l.region.Path())
		case errors.Is(err, unix.ENOENT): // it expired, or the daemon was started again
			return nil, unix.ESTALE
		case err != nil:
			return nil, err
		}
	}
	return l, nil
}

// lock locks what a grant is of.
func (l *lease) lock(g *protocol.Grant) error {
	err := pmem.LockShared(l.desc, protocol.Identity(g.ID, g.Flags&protocol.Write != 0), 1)
	for _, x := range g.Extents {
		if err != nil {
			break
		}
		err = pmem.LockShared(l.desc, int64(x.Region), int64(x.Length))
	}
	if errors.Is(err, pmem.ErrTooManyLocks) {
		return fmt.Errorf("%w: %w", ErrBudget, err)
	}
	return err
}

// generation returns the generation of the slot that the lease is of.
func (l *lease) generation() uint64 { return l.grants[0].Generation }

// commit tells the daemon that bytes [lo, hi) of the file were stored to.
func (l *lease) commit(lo, hi uint64) error {
	for _, g := range l.grants {
		from, to := lo, min(hi, g.End)
		if len(g.Extents) > 0 {
			from = max(lo, g.Extents[0].Offset)
		}
		if from >= to {
			continue
		}
		err := l.conn.command(protocol.IocCommit, protocol.Command{ID: g.ID, Offset: from, Length: to - from})
		if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: the file is gone
			return fmt.Errorf("direct: commit of %s: %w", l.conn.file.Name(), err)
		}
	}
	return nil
}

// end drops the description, and tells the daemon to look. The mappings through it must be gone.
func (l *lease) end() {
	if l.desc != nil {
		l.desc.Close()
		l.desc = nil
	}
	for _, g := range l.grants {
		_ = l.conn.command(protocol.IocRelease, protocol.Command{ID: g.ID}) // a hint
	}
}
