package direct

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct"
	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/pmem"
	"github.com/daxfsd/daxfsd/test/harness"
)

// heldBytes is how much holdAndFork maps.
const heldBytes = 64 << 10

// holdAndFork maps the beginning of the file args[0], forks and exits. Its child, which has
// inherited the mapping, obeys what it reads from the standard input: 'r' writes what is mapped to
// the standard output, 'x' executes another program, which waits for the end of the input, as does
// the child.
func holdAndFork(args []string) error {
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	d, err := direct.Open(f)
	if err != nil {
		return err
	}
	m, err := d.Map(0, heldBytes, direct.MapOptions{Write: true})
	if err != nil {
		return err
	}
	name, err := unix.BytePtrFromString("/bin/cat")
	if err != nil {
		return err
	}
	argv, env := []*byte{name, nil}, []*byte{nil}
	order, mapped := make([]byte, 1), m.Bytes()
	return inChild(func() {
		for {
			n, _, _ := syscall.RawSyscall(syscall.SYS_READ, 0, uintptr(unsafe.Pointer(&order[0])), 1)
			switch {
			case n != 1:
				return
			case order[0] == 'r':
				syscall.RawSyscall(syscall.SYS_WRITE, 1, uintptr(unsafe.Pointer(&mapped[0])), heldBytes)
			case order[0] == 'x':
				syscall.RawSyscall(syscall.SYS_EXECVE, uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])))
			}
		}
	})
}

// inChild forks and runs f in the child, which has no other thread: f makes raw system calls only.
//
//go:norace
func inChild(f func()) error {
	pid, _, e := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if e != 0 {
		return fmt.Errorf("fork: %w", e)
	}
	if pid == 0 {
		f()
		syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return nil
}

// leased reports whether any program has a lease of the region.
func leased(t *testing.T, m *harness.Mount) bool {
	t.Helper()
	r, err := pmem.Open(m.Region, pmem.Options{ReadOnly: true, Shared: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	lo, hi := protocol.Identities()
	_, _, ok, err := r.FirstLock(lo, hi-lo)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// fill fills a mount with files of stamps, and returns a function that checks them.
func fill(t *testing.T, m *harness.Mount, name string) (check func()) {
	t.Helper()
	b := bytes.Repeat([]byte{0xf1}, 1<<20)
	f, err := os.Create(m.Path(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	size := int64(0)
	for len(b) >= 4096 {
		n, err := f.WriteAt(b, size)
		size += int64(n)
		if err != nil {
			b = b[:len(b)/2]
		}
	}
	return func() {
		t.Helper()
		got := make([]byte, 1<<20)
		for off := int64(0); off < size; {
			n, err := f.ReadAt(got, off)
			if n == 0 || err != nil && err != io.EOF {
				t.Fatalf("reading what fills the mount: %v", err)
			}
			for i, x := range got[:n] {
				if x != 0xf1 {
					t.Fatalf("byte %d of what fills the mount is %#x", off+int64(i), x)
				}
			}
			off += int64(n)
		}
	}
}

// TestFork checks that a child that has inherited a mapping keeps the lease when its parent has
// ended, and that exec ends it.
func TestFork(t *testing.T) {
	m := harness.New(t, 64<<20, limit)
	path := m.Path("f")
	create(t, path, 1, heldBytes)
	in, orders, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer orders.Close()
	answers, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer answers.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := harness.Child(ctx, "hold-and-fork", path)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	if !leased(t, m) {
		t.Fatal("the lease has ended with the parent")
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	check := fill(t, m, "others")
	got := make([]byte, heldBytes)
	if _, err := orders.Write([]byte("r")); err != nil {
		t.Fatal(err)
	}
	if err := answers.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(answers, got); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{1}, heldBytes)) {
		t.Errorf("the child sees other bytes than the file had (%v)", err)
	}
	check()
	if _, err := orders.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); leased(t, m); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the lease is left after exec")
		}
	}
	create(t, m.Path("more"), 2, heldBytes/2) // in the space that has come back
	check()
}
