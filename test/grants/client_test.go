package grants

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/pmem"
)

// blockSize is that of the filesystem, in bytes.
const blockSize = 4096

// raw is a client that makes each step of the protocol by itself.
//
// States: granted -> locked -> mapped -> confirmed -> ended.
type raw struct {
	file  *os.File // on the mount; nil: closed
	grant protocol.Grant
	desc  *os.File // of the region; nil: closed
	slot  []byte
	mem   []piece
	maps  [][]byte
}

// piece is a part of the grant that is mapped.
type piece struct {
	off uint64 // in the file, bytes
	mem []byte
}

// steps are what a client does, in this order. It dies before any of them, or after the last one.
var steps = []string{"open", "GRANT", "open the region", "lock the identity", "lock the blocks", "map", "CONFIRM", "store", "COMMIT", "close the region", "unmap", "RELEASE", "close", "next"}

// run makes all steps once with the range of q of a file, and calls at before each of them.
func (c *raw) run(name string, q protocol.GrantRequest, at func(step int), store func(c *raw)) (err error) {
	defer c.end()
	mode := os.O_RDONLY
	if q.Flags&protocol.Write != 0 {
		mode = os.O_RDWR
	}
	for i, step := range [...]func() error{
		func() error { c.file, err = os.OpenFile(name, mode, 0); return err },
		func() error { return c.ask(q) },
		c.openRegion,
		c.lockIdentity,
		c.lockBlocks,
		c.mapAll,
		c.confirm,
		func() error { store(c); return nil },
		func() error { return c.commit(0, 0) },
		func() error { return c.desc.Close() },
		c.unmap,
		c.release,
		func() error { return c.file.Close() },
		func() error { return nil },
	} {
		at(i)
		if err := step(); err != nil {
			return fmt.Errorf("%s: %w", steps[i], err)
		}
	}
	return nil
}

// lease makes the steps up to CONFIRM.
func lease(name string, q protocol.GrantRequest) (c *raw, err error) {
	mode := os.O_RDONLY
	if q.Flags&protocol.Write != 0 {
		mode = os.O_RDWR
	}
	for range 100 {
		c = new(raw)
		if c.file, err = os.OpenFile(name, mode, 0); err != nil {
			return nil, err
		}
		for i, step := range [...]func() error{func() error { return c.ask(q) }, c.openRegion, c.lockIdentity, c.lockBlocks, c.mapAll, c.confirm} {
			if err = step(); err != nil {
				err = fmt.Errorf("%s: %w", steps[i+1], err)
				break
			}
		}
		if err == nil {
			return c, nil
		}
		c.end()
		if !errors.Is(err, unix.ESTALE) {
			break
		}
	}
	return nil, err
}

func (c *raw) ask(q protocol.GrantRequest) error {
	b := make([]byte, protocol.GrantSize)
	q.Encode(b)
	if err := ioctl(c.file, protocol.IocGrant, b); err != nil {
		return err
	}
	return c.grant.Decode(b, &q)
}

func (c *raw) writable() bool { return c.grant.Flags&protocol.Write != 0 }

func (c *raw) openRegion() (err error) {
	mode := os.O_RDONLY
	if c.writable() {
		mode = os.O_RDWR
	}
	c.desc, err = os.OpenFile(c.grant.Path, mode, 0)
	return err
}

func (c *raw) lockIdentity() error {
	return pmem.LockShared(c.desc, protocol.Identity(c.grant.ID, c.writable()), 1)
}

func (c *raw) lockBlocks() error {
	for _, x := range c.grant.Extents {
		if err := pmem.LockShared(c.desc, int64(x.Region), int64(x.Length)); err != nil {
			return err
		}
	}
	return nil
}

func (c *raw) mapAll() error {
	prot := unix.PROT_READ
	if c.writable() {
		prot |= unix.PROT_WRITE
	}
	mapped := func(off, n uint64, prot int) ([]byte, error) {
		lo := off &^ (c.grant.Granule - 1)
		end := min(c.grant.RegionSize, (off+n+c.grant.Granule-1)&^(c.grant.Granule-1))
		m, err := unix.Mmap(int(c.desc.Fd()), int64(lo), int(end-lo), prot, unix.MAP_SHARED)
		if err != nil {
			return nil, err
		}
		c.maps = append(c.maps, m)
		return m[off-lo : off-lo+n], nil
	}
	for _, x := range c.grant.Extents {
		m, err := mapped(x.Region, x.Length, prot)
		if err != nil {
			return err
		}
		c.mem = append(c.mem, piece{x.Offset, m})
	}
	var err error
	c.slot, err = mapped(c.grant.Slot, protocol.SlotSize, unix.PROT_READ)
	return err
}

func (c *raw) command(cmd uintptr, q protocol.Command) error {
	b := make([]byte, protocol.CommandSize)
	q.Encode(b)
	if err := ioctl(c.file, cmd, b); err != nil {
		return err
	}
	return protocol.DecodeReply(b)
}

func (c *raw) confirm() error {
	return c.command(protocol.IocConfirm, protocol.Command{ID: c.grant.ID, Generation: c.grant.Generation})
}

// commit is nothing for a grant to read.
func (c *raw) commit(off, n uint64) error {
	if !c.writable() {
		return nil
	}
	return c.command(protocol.IocCommit, protocol.Command{ID: c.grant.ID, Offset: off, Length: n})
}

func (c *raw) release() error {
	return c.command(protocol.IocRelease, protocol.Command{ID: c.grant.ID})
}

func (c *raw) unmap() error {
	for _, m := range c.maps {
		if err := unix.Munmap(m); err != nil {
			return err
		}
	}
	c.maps, c.mem, c.slot = nil, nil, nil
	return nil
}

// end closes what is open and unmaps what is mapped.
func (c *raw) end() {
	_ = c.unmap()
	if c.desc != nil {
		c.desc.Close()
	}
	if c.file != nil {
		c.file.Close()
	}
}

// over reports whether the lease of a grant of an open file has ended.
func over(f *os.File, id uint64) (bool, error) {
	c := raw{file: f, grant: protocol.Grant{ID: id}}
	if err := c.release(); err != nil && err != unix.ENOENT {
		return false, err
	}
	err := c.release()
	if err != nil && err != unix.ENOENT {
		return false, err
	}
	return err == unix.ENOENT, nil
}
