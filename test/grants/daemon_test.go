package grants

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/test/harness"
)

const holdBlocks = 300 // of each file that is held

// holder maps a file and watches what it maps: nobody but itself may change it. Its arguments are
// the file, "r" or "w", and the file's owner; "busy" if it keeps the file open, or "part" and which
// blocks it maps. To each line of its standard input it answers how
// often it has stored to the first word of all blocks, and which lease it has.
func holder(args []string) error {
	owner := number(args[2])
	q := protocol.GrantRequest{Length: holdBlocks * blockSize}
	if args[1] == "w" {
		q.Flags = protocol.Write
	}
	if len(args) == 6 {
		q.Offset, q.Length = number(args[4])*blockSize, number(args[5])*blockSize
	}
	c, err := lease(args[0], q)
	if err != nil {
		return err
	}
	if len(args) < 4 || args[3] != "busy" {
		c.file.Close()
		c.file = nil
	}
	c.desc.Close() // the mappings keep the locks
	asked := make(chan bool)
	go func() {
		in := bufio.NewScanner(os.Stdin)
		for in.Scan() {
			asked <- true
		}
		close(asked)
	}()
	for version := uint64(0); ; {
		for _, p := range c.mem {
			if err := check(p.mem, owner, p.off); err != nil {
				return err
			}
			for i := 0; i < len(p.mem); i += blockSize {
				w, want := p.mem[i:i+8], word(owner, (p.off+uint64(i))/blockSize, version)
				if got := binary.NativeEndian.Uint64(w); got != want {
					return fmt.Errorf("block %d has %#x, and not what was stored there, %#x", p.off/blockSize+uint64(i/blockSize), got, want)
				}
				if c.writable() {
					binary.NativeEndian.PutUint64(w, want+1)
				}
			}
		}
		if c.writable() {
			version++
		}
		select {
		case _, ok := <-asked:
			if !ok {
				return nil
			}
			fmt.Println(version, c.grant.ID)
		default:
			time.Sleep(100 * time.Microsecond)
		}
	}
}

// held is a process that holds a lease.
type held struct {
	*child
	name string
	out  *bufio.Scanner
	ask  interface{ WriteString(string) (int, error) }
	id   uint64
}

// hold makes a file that is stamped, and a process that maps it.
func hold(t *testing.T, name, mode string, owner uint64, more ...string) *held {
	t.Helper()
	b := make([]byte, holdBlocks*blockSize)
	stamp(b, owner, 0, 0)
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return holdFile(t, name, mode, owner, more...)
}

// holdFile makes a process that maps a file.
func holdFile(t *testing.T, name, mode string, owner uint64, more ...string) *held {
	t.Helper()
	var err error
	var ask, out *os.File
	var in [2]*os.File
	if in[0], ask, err = os.Pipe(); err == nil {
		out, in[1], err = os.Pipe()
	}
	if err != nil {
		t.Fatal(err)
	}
	h := &held{name: name, out: bufio.NewScanner(out), ask: ask}
	h.child = startWith(t, func(cmd *exec.Cmd) { cmd.Stdin, cmd.Stdout = in[0], in[1] }, "hold", append([]string{name, mode, strconv.FormatUint(owner, 10)}, more...)...)
	h.in = ask
	in[0].Close()
	in[1].Close()
	t.Cleanup(func() { ask.Close(); out.Close() })
	h.stored(t)
	return h
}

// stored requires that the process has seen nothing wrong, and returns how often it has stored.
func (h *held) stored(t *testing.T) (version uint64) {
	t.Helper()
	_, err := h.ask.WriteString("?\n")
	if err != nil || !h.out.Scan() {
		h.in.Close()
		t.Fatalf("%s of %s: %v: %s", h.cmd.Args[1:], h.name, errors.Join(err, h.out.Err(), h.cmd.Wait()), h.errs.String())
	}
	if _, err := fmt.Sscan(h.out.Text(), &version, &h.id); err != nil {
		t.Fatal(err)
	}
	return version
}

// TestDaemonKilled kills the daemon, or unmounts, while programs map files, mounts again, and fills
// the filesystem to the last block: what they map stays what it is, what they store is in the files
// that have the blocks, and what is of no file comes back when they end.
func TestDaemonKilled(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(seeded(t), 3))
	m := harness.New(t, 64<<20, 2*time.Minute+time.Duration(*restarts)*20*time.Second)
	fresh := used(t, m)
	longest := time.Duration(0)
	for round := range *restarts {
		dir := m.Path("files")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		way := [...]string{"kill", "umount", "kill", "force", "remount"}[round%5]
		var busy []string
		if way == "force" {
			busy = []string{"busy"}
		}
		// One file is kept, one is deleted, one is cut, before the daemon's death or after it.
		var all []*held
		for i := range 6 {
			all = append(all, hold(t, fmt.Sprintf("%s/h%d", dir, i), []string{"w", "r"}[i%2], uint64(100+i), busy...))
		}
		cut := func(i int) {
			if err := os.Remove(all[i].name); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(all[i+2].name, int64(rng.IntN(holdBlocks))*blockSize); err != nil {
				t.Fatal(err)
			}
		}
		early := rng.IntN(2) == 0
		if early && way != "force" { // an open file that is deleted is not free
			cut(2)
			cut(3)
		}
		switch way {
		case "kill":
			var busy []*child // whose requests are under way
			for i := range 3 {
				busy = append(busy, start(t, [...]string{"load", "steps", "steps"}[i], dir, strconv.Itoa(rng.Int()), "0"))
			}
			time.Sleep(time.Duration(rng.Int64N(int64(200 * time.Millisecond))))
			m.Kill9()
			for _, c := range busy {
				_ = c.cmd.Process.Kill()
				_ = c.cmd.Wait()
			}
			if m.Fsck().Clean {
				t.Fatal("killed, and fsck says that it was unmounted")
			}
		case "umount":
			m.Down()
		case "force":
			m.Force()
		case "remount":
			for range 3 {
				m.Down()
				m.Up()
			}
			m.Kill9()
		}
		m.Up()
		if !early || way == "force" {
			cut(2)
			cut(3)
		}
		for start := time.Now(); ; time.Sleep(10 * time.Millisecond) { // a file that is deleted is freed a moment later
			s := m.Stats()
			if s.LeasedBytes >= 6*holdBlocks*blockSize && s.LeasedDeferred >= 2*holdBlocks*blockSize && s.DeferredFrees >= s.LeasedDeferred {
				break
			}
			if time.Since(start) > 5*time.Second {
				t.Fatalf("round %d, %s: after the mount %d bytes are leased, %d of them of no file; expected those of %d programs", round, way, s.LeasedBytes, s.LeasedDeferred, len(all))
			}
		}
		filler := fill(t, m)
		for _, h := range all {
			h.stored(t)
		}
		// What a writer stored after the daemon's death is in the file that it kept.
		version := all[0].stored(t)
		b := make([]byte, holdBlocks*blockSize)
		if n, err := readFile(all[0].name, b); err != nil || n != len(b) {
			t.Fatal(n, err)
		}
		for i := 0; i < len(b); i += blockSize {
			if v := binary.NativeEndian.Uint64(b[i:]) & 0xfffff; v < version {
				t.Fatalf("round %d, %s: block %d of the file has version %d, and %d was stored", round, way, i/blockSize, v, version)
			}
		}
		if err := check(b, 100, 0); err != nil {
			t.Fatalf("round %d, %s: %v", round, way, err)
		}
		// Another program can map the file now.
		second := holdFileAt(t, all[1].name, 101)
		second.stop(t)
		longest = max(longest, comeBack(t, m, filler, all))
		filler.Close()
		ends(t, m)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(m.Path("filler")); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("a writer waited %v for the space of leases that had ended, at most", longest.Round(time.Millisecond))
	empty(t, m, m.Path("files"), fresh)
}

// holdFileAt is holdFile, to read.
func holdFileAt(t *testing.T, name string, owner uint64) *held {
	t.Helper()
	return holdFile(t, name, "r", owner)
}

// readFile fills p from the beginning of a file.
func readFile(name string, p []byte) (int, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.ReadAt(p, 0)
}

// fill takes all space with a file, to the last block.
func fill(t *testing.T, m *harness.Mount) *os.File {
	t.Helper()
	f, err := os.Create(m.Path("filler"))
	if err != nil {
		t.Fatal(err)
	}
	at := int64(0)
	for n := 1 << 20; n >= blockSize; {
		b := make([]byte, n)
		stamp(b, 0xffffff, uint64(at)/blockSize, 1)
		k, err := f.WriteAt(b, at)
		at += int64(k)
		if err == nil && k == n {
			continue
		}
		if err != nil && !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		n /= 2
	}
	return f
}

// comeBack kills the processes, and returns how long a writer then waits for the space of files
// that are gone.
func comeBack(t *testing.T, m *harness.Mount, filler *os.File, all []*held) time.Duration {
	t.Helper()
	info, err := filler.Stat()
	if err != nil {
		t.Fatal(err)
	}
	at, b := info.Size(), make([]byte, blockSize)
	if _, err := filler.WriteAt(b, at); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("a write to a full filesystem: %v", err)
	}
	var wg sync.WaitGroup
	for _, h := range all {
		wg.Go(func() { h.killed(t) })
	}
	wg.Wait()
	start := time.Now()
	for {
		_, err := filler.WriteAt(b, at)
		took := time.Since(start)
		if err == nil {
			within(t, took, "the space of leases that have ended")
			return took
		}
		if !errors.Is(err, unix.ENOSPC) || took > 10*time.Second {
			t.Fatalf("%v after all leases have ended, a write says: %v; %s", took, err, strings.TrimSpace(fmt.Sprintf("%+v", m.Stats())))
		}
		time.Sleep(5 * time.Millisecond)
	}
}
