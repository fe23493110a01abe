package grants

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/test/harness"
)

// locker takes locks on the region that nobody has given it, prints a line, and keeps them until
// its standard input ends.
func locker(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	lock := func(kind int16, off, n int64) {
		l := unix.Flock_t{Type: kind, Whence: unix.SEEK_SET, Start: off, Len: n}
		if e := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l); e != nil {
			err = errors.Join(err, e)
		}
	}
	switch args[1] {
	case "all, to read":
		lock(unix.F_RDLCK, 0, 0)
	case "all, to write":
		lock(unix.F_WRLCK, 0, 0)
	case "ids":
		lo, hi := protocol.Identities()
		lock(unix.F_RDLCK, lo, hi-lo)
	case "10 000 bytes":
		for i := range int64(10_000) {
			lock(unix.F_RDLCK, 2*blockSize*i, 1)
		}
	case "2000 ids":
		for i := range uint64(2000) {
			lock(unix.F_RDLCK, protocol.Identity(1+2*i, true), 1)
		}
	}
	fmt.Println("locked")
	over := inputEnds()
	for err == nil && !over() {
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// talk starts a child and waits for the first line of its output.
func talk(t *testing.T, name string, args ...string) (c *child, line string) {
	t.Helper()
	out, in := pipe(t)
	var stdin interface{ Close() error }
	c = startWith(t, func(cmd *exec.Cmd) { stdin, _ = cmd.StdinPipe(); cmd.Stdout = in }, name, args...)
	c.in = stdin
	in.Close()
	b := make([]byte, 100)
	if err := out.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	n, err := out.Read(b)
	if err != nil {
		c.in.Close()
		t.Fatalf("%s: %v: %s", name, errors.Join(err, c.cmd.Wait()), c.errs.String())
	}
	return c, string(b[:n])
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// TestForeignLocks takes locks that no grant is for: the mount serves as ever, grants are made or
// answered with ENOLCK, a daemon that starts meanwhile serves, and all is well when the locks end.
func TestForeignLocks(t *testing.T) {
	t.Parallel()
	m := harness.New(t, 128<<20, 5*time.Minute)
	name := m.Path("f")
	b := make([]byte, 8*blockSize)
	stamp(b, 1, 0, 0)
	write := func() error { return os.WriteFile(name, b, 0o644) }
	grant := func() error {
		c, err := lease(name, protocol.GrantRequest{Flags: protocol.Write, Length: 8 * blockSize})
		if err == nil {
			c.end()
		}
		return err
	}
	if err := errors.Join(write(), grant()); err != nil {
		t.Fatal(err)
	}
	ends(t, m)
	free := m.Stats().FreeBlocks
	for _, what := range []string{"all, to read", "all, to write", "ids", "10 000 bytes", "2000 ids"} {
		t.Run(what, func(t *testing.T) {
			c, _ := talk(t, "locker", m.Region, what)
			serves := func(when string) {
				t.Helper()
				got, err := os.ReadFile(name)
				if err != nil || string(got) != string(b) {
					t.Errorf("%s a file cannot be read: %d bytes, %v", when, len(got), err)
				}
				f := must(os.OpenFile(name, os.O_WRONLY, 0))(t)
				if _, err := f.WriteAt(b, 0); err != nil {
					t.Errorf("%s a file cannot be written: %v", when, err)
				}
				f.Close()
				start := time.Now()
				// EAGAIN: the client cannot lock what is locked to write.
				if err := grant(); err != nil && !errors.Is(err, unix.ENOLCK) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EOPNOTSUPP) {
					t.Errorf("%s a grant: %v", when, err)
				}
				within(t, time.Since(start), "a grant "+when)
			}
			serves("with these locks")
			if err := write(); err != nil {
				t.Errorf("with these locks a file cannot be replaced: %v", err)
			}
			m.Kill9()
			if took := m.Up(); took > 20*time.Second {
				t.Errorf("the mount took %v", took)
			} else {
				t.Logf("the mount took %v", took.Round(time.Millisecond))
			}
			serves("in a mount that has found these locks")
			c.killed(t)
			ends(t, m)
			m.Down()
			m.Up()
			if err := errors.Join(write(), grant()); err != nil {
				t.Errorf("without the locks: %v", err)
			}
			ends(t, m)
			if now := m.Stats().FreeBlocks; now != free {
				t.Errorf("%d blocks are free, expected %d", now, free)
			}
		})
	}
}

// hoarder asks for grants that it does not confirm, as an unprivileged user, until it gets no more.
// It prints how many it got. Its arguments are a directory, and a file in it.
func hoarder(args []string) error {
	if err := os.Chdir(args[0]); err != nil {
		return err
	}
	for _, err := range []error{syscall.Setgroups(nil), syscall.Setgid(1000), syscall.Setuid(1000)} {
		if err != nil {
			return err
		}
	}
	f, err := os.OpenFile(args[1], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	n := 0
	for ; ; n++ {
		c := raw{file: f}
		if err = c.ask(protocol.GrantRequest{Length: blockSize}); err != nil {
			break
		}
	}
	if err != unix.ENOLCK {
		return err
	}
	fmt.Println(n)
	over := inputEnds()
	for !over() {
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// TestHoard has a user ask for as many grants as they can get: others get theirs, and all of them
// end with the open file.
func TestHoard(t *testing.T) {
	t.Parallel()
	m := harness.New(t, 64<<20, 2*time.Minute)
	for name, uid := range map[string]int{"theirs": 1000, "mine": 0} {
		if err := errors.Join(os.WriteFile(m.Path(name), make([]byte, blockSize), 0o644), os.Chown(m.Path(name), uid, uid)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(m.Mountpoint, 0o755); err != nil {
		t.Fatal(err)
	}
	c, line := talk(t, "hoarder", m.Mountpoint, "theirs")
	n, _ := strconv.Atoi(line[:len(line)-1])
	if n < 100 {
		t.Errorf("%d grants", n)
	}
	mine, err := lease(m.Path("mine"), protocol.GrantRequest{Flags: protocol.Write, Length: blockSize})
	if err != nil {
		t.Fatalf("another user's grant: %v", err)
	}
	mine.end()
	c.killed(t)
	took := ends(t, m)
	within(t, took, "the end of the grants")
	t.Logf("%d grants", n)
}

// garbage sends messages to a file that are malformed, lie, or name what belongs to others, until
// its standard input ends.
func garbage(args []string) error {
	rng := rand.New(rand.NewPCG(number(args[1]), 6))
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	over := inputEnds()
	var last protocol.Grant
	for n := 0; !over(); n++ {
		b := make([]byte, protocol.GrantSize)
		q := protocol.GrantRequest{Flags: uint32(rng.IntN(4)), Offset: rng.Uint64N(1<<rng.IntN(50)) &^ 4095, Length: (1 + rng.Uint64N(1<<rng.IntN(50))) &^ 4095, PageSize: uint64(rng.IntN(2)) << rng.IntN(40)}
		cmd, size := uintptr(protocol.IocGrant), protocol.GrantSize
		if rng.IntN(2) == 0 {
			q.Encode(b)
		} else {
			cmd, size = [...]uintptr{protocol.IocConfirm, protocol.IocCommit, protocol.IocRelease}[rng.IntN(3)], protocol.CommandSize
			c := protocol.Command{ID: last.ID + rng.Uint64N(3), Generation: last.Generation, Offset: rng.Uint64N(1 << 40), Length: rng.Uint64N(1 << 40)}
			if rng.IntN(2) == 0 {
				c.ID = rng.Uint64()
			}
			c.Encode(b[:size])
		}
		for range rng.IntN(3) {
			b[rng.IntN(size)>>rng.IntN(8)] = byte(rng.Uint32())
		}
		switch err := ioctl(f, cmd, b[:size]); {
		case err == nil && cmd == protocol.IocGrant:
			_ = last.Decode(b, &q)
		case err == nil, benign(err), errors.Is(err, unix.EINVAL), errors.Is(err, unix.EBADF):
		default:
			return err
		}
		if n%64 == 0 { // what was promised to the handle ends
			f.Close()
			if f, err = os.OpenFile(args[0], os.O_RDWR, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestGarbage sends garbage to a file from several processes at once. The file of another program
// stays as it is, the daemon lives, and nothing is left.
func TestGarbage(t *testing.T) {
	t.Parallel()
	base := seeded(t)
	m := harness.New(t, 64<<20, 2*time.Minute)
	fresh := used(t, m)
	dir := m.Path("files")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h := hold(t, m.Path("files", "held"), "w", 4)
	target := m.Path("files", "target")
	if err := os.WriteFile(target, make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	var all []*child
	for i := range 4 {
		all = append(all, start(t, "garbage", target, strconv.FormatUint(base+uint64(i), 10)))
	}
	time.Sleep(time.Second)
	for _, c := range all {
		c.stop(t)
	}
	m.Alive()
	h.stored(t)
	h.stop(t)
	ends(t, m)
	empty(t, m, dir, fresh)
}
