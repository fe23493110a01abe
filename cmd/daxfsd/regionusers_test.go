package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestUsersByAnotherNode checks that a process is found that maps a device, or has it open, through
// another node than the one that is asked about, as in a container, and that a node with the same
// name, of another device, does not count.
func TestUsersByAnotherNode(t *testing.T) {
	needRoot(t)
	node := func(minor uint32) string {
		name := filepath.Join(t.TempDir(), "dax0.0")
		if err := unix.Mknod(name, unix.S_IFCHR|0o600, int(unix.Mkdev(1, minor))); err != nil {
			t.Fatal(err)
		}
		return name
	}
	ours, theirs, other := node(5), node(5), node(7) // zero, which can be mapped, and full
	self := func(name string) *regionUser {
		t.Helper()
		f, err := find(name)
		if err != nil {
			t.Fatal(err)
		}
		users := f.users()
		if i := slices.IndexFunc(users, func(u regionUser) bool { return u.PID == os.Getpid() }); i >= 0 {
			return &users[i]
		}
		return nil
	}
	file, err := os.OpenFile(theirs, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if u := self(ours); u == nil || u.Mapped != 0 || u.Writable {
		t.Errorf("while another node is open: %+v", u)
	}
	const size = 64 << 10
	mem, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	file.Close()
	if u := self(ours); u == nil || u.Mapped != size || !u.Writable || u.Command == "" {
		t.Errorf("while another node is mapped: %+v", u)
	}
	if u := self(other); u != nil {
		t.Errorf("another device is said to be in use: %+v", u)
	}
}
