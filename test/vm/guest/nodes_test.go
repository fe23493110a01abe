package guest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/test/harness"
)

const (
	sharedName = "shared"
	counters   = 3      // each of 8 bytes, in the first block of the file; each has one writer
	countTo    = 50_000 // by a grant
	countSlow  = 300    // through the mount
)

// anotherNode makes another device node of the device, as a container has.
func anotherNode(t *testing.T) string {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(dax, &st); err != nil {
		t.Fatal(err)
	}
	node := filepath.Join(t.TempDir(), "dax0.0")
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(st.Rdev)); err != nil {
		t.Fatal(err)
	}
	return node
}

// nodes tests programs and mounts that reach the device through another device node. The kernel
// keeps the locks of that node apart from those of the daemon's. At the end the daemon is dead, and
// a program still maps a file, for TestDirectReboot.
func nodes(t *testing.T, m *harness.Mount) {
	node := anotherNode(t)
	f, err := os.OpenFile(m.Path(sharedName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fallocate(int(f.Fd()), 0, 0, 4*mib); err != nil {
		t.Fatal(err)
	}
	own := mapShared(t, f)
	t.Run("share", func(t *testing.T) { shareBlock(t, m, own, node) })
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	stays := harness.Child(ctx, "stay", m.Path(sharedName))
	out, err := stays.StdoutPipe()
	if err == nil {
		err = stays.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "mapped\n" {
		t.Fatalf("the program that maps %s says %q (%v)", sharedName, line, err)
	}
	m.Kill9()
	dir := t.TempDir()
	refusal := func() {
		t.Helper()
		for _, args := range [][]string{{"mount", node, dir}, {"mkfs", "--force", node}, {"fsck", "-y", node}} {
			says(t, refused(t, args...), node, "programs of this machine may have mapped files", "another device node", "takeover")
		}
	}
	refusal()
	run(t, harness.Daxfsd, "mount", "-o", "takeover", node, dir)
	run(t, harness.Daxfsd, "umount", dir)
	m.Up()
	if !own.Stale() {
		t.Error("a mapping is not stale though the daemon was started again")
	}
	want := [counters]uint64{countTo, countTo, countSlow}
	if got := counted(own.Bytes()); got != want {
		t.Errorf("the mapping has the counters %d, want %d", got, want)
	}
	wantCounted(t, m, want)
	if err := own.Close(); err != nil {
		t.Error(err)
	}
	m.Kill9()
	refusal() // because of the program that stays
}

// mapShared maps the first 2 MiB of the shared file.
func mapShared(t *testing.T, f *os.File) *direct.Mapping {
	t.Helper()
	m, err := openDirect(t, f).Map(0, 2*mib, direct.MapOptions{Write: true, PageSize: 2 * mib})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// counted returns the counters in a block.
func counted(b []byte) (all [counters]uint64) {
	for i := range all {
		all[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return all
}

func wantCounted(t *testing.T, m *harness.Mount, want [counters]uint64) {
	t.Helper()
	b, err := os.ReadFile(m.Path(sharedName))
	if err != nil || len(b) != 4*mib || counted(b) != want {
		t.Fatalf("through the mount the file has %d bytes and the counters %d, want %d (%v)", len(b), counted(b), want, err)
	}
}

// countUp stores 1, 2, ... n to a counter, and checks that nobody else does.
func countUp(b []byte, counter int, n uint64) error {
	word := b[8*counter:]
	for i := range n {
		if was := binary.LittleEndian.Uint64(word); was != i {
			return fmt.Errorf("counter %d is %d, want %d", counter, was, i)
		}
		binary.LittleEndian.PutUint64(word, i+1)
	}
	return nil
}

// shareBlock lets three programs count in one block at a time: two by grants, and one that has
// another device node, and so no grant.
func shareBlock(t *testing.T, m *harness.Mount, own *direct.Mapping, node string) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	others := map[string]func() ([]byte, error){
		"with a grant": harness.Child(ctx, "count", m.Path(sharedName)).CombinedOutput,
	}
	elsewhere := harness.Child(ctx, "refuse", node, m.Path(sharedName))
	elsewhere.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	others["with another node"] = elsewhere.CombinedOutput
	ended := make(chan error)
	for what, run := range others {
		go func() {
			out, err := run()
			t.Logf("%s: %s", what, out)
			if err != nil {
				err = fmt.Errorf("the program %s: %w: %s", what, err, out)
			}
			ended <- err
		}()
	}
	if err := countUp(own.Bytes(), 0, countTo); err != nil {
		t.Error(err)
	}
	for range others {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	want := [counters]uint64{countTo, countTo, countSlow}
	if got := counted(own.Bytes()); got != want {
		t.Errorf("the mapping has the counters %d, want %d", got, want)
	}
	wantCounted(t, m, want)
}

// count is a program that counts by a grant of its own. Argument: the file.
func count(args []string) error {
	m, err := mapFile(args[0])
	if err != nil {
		return err
	}
	if err := countUp(m.Bytes(), 1, countTo); err != nil {
		return err
	}
	if err := m.Flush(0, 4096); err != nil {
		return err
	}
	return m.Close()
}

// stay is a program that maps a file until it is killed. Argument: the file.
func stay(args []string) error {
	if _, err := mapFile(args[0]); err != nil {
		return err
	}
	fmt.Println("mapped")
	time.Sleep(limit)
	return errors.New("nobody has killed it")
}

func mapFile(name string) (*direct.Mapping, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	d, err := direct.Open(f)
	if err != nil {
		return nil, err
	}
	return d.Map(0, 2*mib, direct.MapOptions{Write: true, PageSize: 2 * mib})
}

// refuse is a program with a device node of its own, in a mount namespace of its own. It gets no
// lease: it cannot map the file, and what it reads and writes goes through the mount. Arguments:
// its device node, the file.
func refuse(args []string) error {
	if err := unix.Mount(args[0], dax, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	f, err := os.OpenFile(args[1], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	d, err := direct.Open(f)
	if err != nil {
		return err
	}
	defer d.Close()
	_, err = d.Map(0, 2*mib, direct.MapOptions{})
	if !errors.Is(err, direct.ErrRegion) || !strings.Contains(err.Error(), "the daemon does not see this process's locks") {
		return fmt.Errorf("a mapping through another device node: %w", err)
	}
	fmt.Println(err)
	b := make([]byte, 8)
	for i := range uint64(countSlow) {
		if n, err := d.ReadAt(b, 16); n != len(b) || err != nil {
			return fmt.Errorf("%d bytes, %w", n, err)
		}
		if was := binary.LittleEndian.Uint64(b); was != i {
			return fmt.Errorf("the counter is %d, want %d", was, i)
		}
		binary.LittleEndian.PutUint64(b, i+1)
		if _, err := d.WriteAt(b, 16); err != nil {
			return err
		}
	}
	if n := d.Normal(); n != 2*countSlow {
		return fmt.Errorf("%d of %d reads and writes went through the mount", n, 2*countSlow)
	}
	return nil
}

// TestDirectReboot checks that after a reboot of the guest in which nodes has run, the device can
// be mounted through another node: no program of that boot maps it any more.
func TestDirectReboot(t *testing.T) {
	m := harness.Existing(t, anotherNode(t), "transport=dev", limit)
	m.Up()
	wantCounted(t, m, [counters]uint64{countTo, countTo, countSlow})
	m.Down()
}
