package attack

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
)

// grantAttacks ask for grants, which any user may do, also one who may not open the region.
var grantAttacks = []attack{
	{name: "grants", prepare: large, ask: func(th, round int) error {
		f, err := os.OpenFile("large"+strconv.Itoa(th%4), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close() // which ends them
		for i := range 20 {
			q := protocol.GrantRequest{Flags: uint32(round % 2 * protocol.Write), Offset: uint64(i) * 4096, Length: 8 << 20}
			if err := grant(f, &q); err != nil {
				return err
			}
		}
		return nil
	}},
	{name: "grants of fresh blocks", ask: func(th, round int) error {
		f, err := os.Create("fresh" + strconv.Itoa(th))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Truncate(4 << 20); err != nil {
			return err
		}
		return grant(f, &protocol.GrantRequest{Flags: protocol.Write | protocol.Allocate, Length: 4 << 20, PageSize: 2 << 20})
	}},
	{name: "malformed ioctls", prepare: large, ask: func(th, round int) error {
		f, err := os.OpenFile("large"+strconv.Itoa(th%4), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		b := make([]byte, protocol.CommandSize)
		for i := range uint64(100) {
			q := protocol.Command{ID: 1 + i, Generation: uint64(round)}
			q.Encode(b)
			b[i%4] ^= byte(round % 2)
			cmd := [...]uintptr{protocol.IocConfirm, protocol.IocCommit, protocol.IocRelease}[i%3]
			if err := ioctl(f, cmd, b); err != nil && err != unix.ENOENT && err != unix.EINVAL {
				return fmt.Errorf("a command of an id that was not given out: %w", err)
			}
		}
		return nil
	}},
}

// large makes files that the threads share.
func large(dir string) error {
	for i := range 4 {
		if err := os.WriteFile(fmt.Sprintf("%s/large%d", dir, i), make([]byte, 8<<20), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// grant asks for a grant. The user may have all that they may have, and others change the file.
func grant(f *os.File, q *protocol.GrantRequest) error {
	b := make([]byte, protocol.GrantSize)
	q.Encode(b)
	switch err := ioctl(f, protocol.IocGrant, b); err {
	case nil, unix.ENOLCK, unix.EAGAIN, unix.ENOSPC:
		return nil
	default:
		return fmt.Errorf("grant: %w", err)
	}
}
