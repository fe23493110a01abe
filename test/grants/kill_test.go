package grants

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/test/harness"
)

const (
	killFiles  = 6
	killBlocks = 256 // of each file, at most
)

func killFile(dir string, i int) string { return filepath.Join(dir, "f"+strconv.Itoa(i)) }

// benign reports whether an error of a client is due to what others do to the files meanwhile.
func benign(err error) bool {
	for _, e := range [...]syscall.Errno{unix.ENOENT, unix.ENXIO, unix.ESTALE, unix.ENOSPC, unix.EAGAIN, unix.ENOLCK} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// stepper makes the steps of the protocol over and over.
// It kills itself before a step: its arguments are a directory, a seed, and after how many steps; 0
// for never.
func stepper(args []string) error {
	dir, rng, left := args[0], rand.New(rand.NewPCG(number(args[1]), 1)), number(args[2])
	if left == 0 {
		left = 1 << 62
	}
	for {
		q := protocol.GrantRequest{Offset: rng.Uint64N(killBlocks) * blockSize, Length: (1 + rng.Uint64N(killBlocks)) * blockSize}
		if rng.IntN(3) > 0 {
			q.Flags = protocol.Write
			if rng.IntN(2) == 0 {
				q.Flags |= protocol.Allocate
			}
		}
		if rng.IntN(8) == 0 {
			q.PageSize = 2 << 20
		}
		c := new(raw)
		err := c.run(killFile(dir, rng.IntN(killFiles)), q, func(int) {
			if left--; left == 0 {
				_ = unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
		}, func(c *raw) {
			for _, p := range c.mem {
				if c.writable() {
					stamp(p.mem, 7, p.off/blockSize, rng.Uint64())
				}
			}
		})
		if err != nil && !benign(err) {
			return err
		}
	}
}

// loader works on the same files through the mount, until its standard input ends.
func loader(args []string) error {
	dir, rng := args[0], rand.New(rand.NewPCG(number(args[1]), 2))
	over := inputEnds()
	b := make([]byte, 32*blockSize)
	for !over() {
		name := killFile(dir, rng.IntN(killFiles))
		if rng.IntN(10) == 0 {
			_ = os.Remove(name)
		}
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		for range 8 {
			block := rng.Int64N(killBlocks - 32)
			switch n := 1 + rng.Int64N(killBlocks); rng.IntN(8) {
			case 0:
				err = f.Truncate(n * blockSize)
			case 1:
				err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, block*blockSize, n*blockSize)
			case 2:
				err = unix.Fallocate(int(f.Fd()), 0, block*blockSize, 32*blockSize)
			default:
				stamp(b, 7, uint64(block), rng.Uint64())
				_, err = f.WriteAt(b, block*blockSize)
			}
			if err != nil && !benign(err) && !errors.Is(err, unix.EINTR) {
				return err
			}
		}
		f.Close()
	}
	return nil
}

// child is a process of the test that works until its standard input ends.
type child struct {
	cmd  *exec.Cmd
	in   interface{ Close() error }
	errs bytes.Buffer
}

func start(t *testing.T, name string, args ...string) (c *child) {
	t.Helper()
	var in interface{ Close() error }
	c = startWith(t, func(cmd *exec.Cmd) { in, _ = cmd.StdinPipe() }, name, args...)
	c.in = in
	return c
}

// startWith is start. prepare connects the child's standard input.
func startWith(t *testing.T, prepare func(cmd *exec.Cmd), name string, args ...string) *child {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	c := &child{cmd: harness.Child(ctx, name, args...)}
	c.cmd.Stderr = &c.errs
	prepare(c.cmd)
	if err := c.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = c.cmd.Wait()
	})
	return c
}

// succeeds waits until the child has ended, and requires that it succeeds.
func (c *child) succeeds(t *testing.T) {
	t.Helper()
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("%s: %v: %s", c.cmd.Args[1:], err, c.errs.String())
	}
}

// stop ends the child's input, and requires that it succeeds.
func (c *child) stop(t *testing.T) {
	t.Helper()
	c.in.Close()
	c.succeeds(t)
}

// killed kills the child with SIGKILL, and requires that it has not ended before by itself.
func (c *child) killed(t *testing.T) {
	t.Helper()
	_ = c.cmd.Process.Kill()
	c.died(t)
}

// died waits until the child has died of SIGKILL.
func (c *child) died(t *testing.T) {
	t.Helper()
	err := c.cmd.Wait()
	if ws := c.cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
		t.Errorf("%s: %v, expected that it is killed: %s", c.cmd.Args[1:], err, c.errs.String())
	}
}

// TestClientsKilled kills clients before each step of the protocol and at any moment, while others
// change the files. Then no lease and no block is left.
func TestClientsKilled(t *testing.T) {
	t.Parallel()
	base := seeded(t)
	rng := rand.New(rand.NewPCG(base, 0))
	m := harness.New(t, 128<<20, 2*time.Minute+time.Duration(*rounds)*2*time.Second)
	fresh := used(t, m)
	dir := m.Path("files")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	load := start(t, "load", dir, strconv.FormatUint(base, 10))
	longest := time.Duration(0)
	for round := range *rounds {
		arg := func(i int) string { return strconv.FormatUint(base+uint64(round*8+i), 10) }
		// Each of the steps is the last one as often as any other.
		after := rng.IntN(10)*len(steps) + round%len(steps) + 1
		self := []*child{start(t, "steps", dir, arg(0), strconv.Itoa(after)), start(t, "steps", dir, arg(1), strconv.Itoa(1+rng.IntN(1000)))}
		others := []*child{start(t, "steps", dir, arg(2), "0"), start(t, "steps", dir, arg(3), "0")}
		for _, c := range others {
			time.Sleep(time.Duration(rng.Int64N(int64(60 * time.Millisecond))))
			c.killed(t)
		}
		for _, c := range self {
			c.died(t)
		}
		if round%5 == 4 || round == *rounds-1 {
			longest = max(longest, ends(t, m))
		}
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	within(t, longest, "the end of the leases")
	load.stop(t)
	empty(t, m, dir, fresh)
	t.Logf("%d clients killed; the leases were gone %v after that at most", 4**rounds, longest.Round(time.Millisecond))
}

// used unmounts, requires that the region is clean, mounts again, and returns how many blocks are
// in use.
func used(t *testing.T, m *harness.Mount) uint64 {
	t.Helper()
	m.Umount()
	rep := m.Fsck()
	if !rep.Clean {
		t.Fatal("unmounted, and fsck says that it was not")
	}
	m.Up()
	return rep.UsedBlocks
}

// empty deletes a directory, and requires that nothing of it is left in use: blocks are those that
// are used when it is not there.
func empty(t *testing.T, m *harness.Mount, dir string, blocks uint64) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	ends(t, m)
	m.Umount()
	if rep := m.Fsck(); !rep.Clean || rep.DataBlocks != 0 || rep.UsedBlocks > blocks {
		t.Fatalf("with everything deleted fsck says clean: %v, and %d blocks are used, %d of them data; expected %d, 0", rep.Clean, rep.UsedBlocks, rep.DataBlocks, blocks)
	}
}

// inputEnds returns a function that reports whether the standard input has ended.
func inputEnds() func() bool {
	ended := make(chan struct{})
	go func() {
		b := make([]byte, 1)
		for {
			if n, err := os.Stdin.Read(b); n == 0 || err != nil {
				close(ended)
				return
			}
		}
	}()
	return func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}
}
