package direct

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/pmem"
)

// conn is an open file of a mount and the region behind it. A File, its windows and its mappings
// share it, and whoever is last closes it.
type conn struct {
	file  *os.File
	ioctl func(cmd uint, arg []byte) error // immutable; tests replace it
	users atomic.Int32

	mu     sync.Mutex
	region *pmem.Mapper   // protected by mu; nil: not yet opened
	former []*pmem.Mapper // protected by mu: others may be using them
	id     pmem.Identity  // protected by mu: of region
	rw     bool           // protected by mu: region may be opened for writing
}

// put ends one use.
func (c *conn) put() {
	if c.users.Add(-1) > 0 {
		return
	}
	c.file.Close()
	if c.region != nil {
		c.region.Close()
	}
	for _, r := range c.former {
		r.Close()
	}
}

// grant asks for a range. The error says why there is none, see refusal.
func (c *conn) grant(q *protocol.GrantRequest) (*protocol.Grant, error) {
	b := make([]byte, protocol.GrantSize)
	q.Encode(b)
	if err := c.ioctl(protocol.IocGrant, b); err != nil {
		return nil, c.refusal(err, q)
	}
	g := new(protocol.Grant)
	if err := g.Decode(b, q); err != nil {
		return nil, err
	}
	return g, nil
}

// command sends CONFIRM, COMMIT or RELEASE.
func (c *conn) command(cmd uint, q protocol.Command) error {
	b := make([]byte, protocol.CommandSize)
	q.Encode(b)
	if err := c.ioctl(cmd, b); err != nil {
		return err
	}
	return protocol.DecodeReply(b)
}

// refusal puts the errno of a GRANT into words.
func (c *conn) refusal(err error, q *protocol.GrantRequest) error {
	name, to := c.file.Name(), "read"
	if q.Flags&protocol.Write != 0 {
		to = "write"
	}
	switch {
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: %s; open one on a mount whose daxfsd is as new as this program", ErrNotDaxfsd, name)
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: %s, to %s; it needs a mount with -o direct=rw (ro to read) and without -o atomic, and a file that the kernel does not cache (-o dax=never): %w", ErrRefused, name, to, err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: %s is immutable or append-only: %w", ErrRefused, name, err)
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%w: %s is not a regular file: %w", ErrRefused, name, err)
	case errors.Is(err, unix.EBADF):
		return fmt.Errorf("%w: %s is not open to %s: %w", ErrRefused, name, to, err)
	case errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: offset %d of %s is beyond the end, or in a hole that is not to be allocated: %w", ErrRange, q.Offset, name, err)
	case errors.Is(err, unix.ENOLCK):
		return fmt.Errorf("%w: the region has as many leases as it may have; close mappings, or use fewer and larger extents: %w", ErrBudget, err)
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("%w: %s: %w", ErrChanging, name, err)
	}
	return fmt.Errorf("direct: grant of %s: %w", name, err)
}

// mapper returns the region of a grant, opened for the grant's mode.
func (c *conn) mapper(g *protocol.Grant) (*pmem.Mapper, error) {
	id := pmem.Identity{
		FileID: pmem.FileID{Dev: g.RegionDev, Ino: g.RegionIno},
		Size:   int64(g.RegionSize), Granule: int64(g.Granule), Path: g.Path,
	}
	write := g.Flags&protocol.Write != 0
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.region != nil && c.id.FileID == id.FileID && c.id.Size == id.Size && (c.rw || !write) {
		return c.region, nil
	}
	r, err := pmem.OpenMapper(id, write)
	if err != nil {
		need := "read"
		if write {
			need = "read and write"
		}
		return nil, fmt.Errorf("%w: %s: this process must be able to open the region %s to %s it: %w", ErrRegion, c.file.Name(), g.Path, need, err)
	}
	if c.region != nil {
		c.former = append(c.former, c.region)
	}
	c.region, c.id, c.rw = r, id, write
	return r, nil
}
