package grants

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct/protocol"
	"github.com/daxfsd/daxfsd/test/harness"
)

const sentBlocks = 16

// sender leases a file, sends the region's description through descriptor 3, prints the id and
// where in the region the file's first extent is, and ends when its standard input does.
func sender(args []string) error {
	c, err := lease(args[0], protocol.GrantRequest{Length: sentBlocks * blockSize})
	if err != nil {
		return err
	}
	conn, err := net.FileConn(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	x := c.grant.Extents[0]
	text := fmt.Sprintln(c.grant.ID, x.Region, x.Length)
	if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte(text), unix.UnixRights(int(c.desc.Fd())), nil); err != nil {
		return err
	}
	over := inputEnds()
	for !over() {
		time.Sleep(time.Millisecond)
	}
	return nil
}

// TestDescriptionSent checks that whoever has been sent the description keeps the lease: in flight,
// after the death of the sender, and as long as it maps the region through it.
func TestDescriptionSent(t *testing.T) {
	t.Parallel()
	m := harness.New(t, 64<<20, 2*time.Minute)
	name := m.Path("f")
	b := make([]byte, sentBlocks*blockSize)
	stamp(b, 3, 0, 0)
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	watch := must(os.Open(name))(t) // to ask for the lease
	defer watch.Close()
	pair := must(unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))(t)
	theirs, ours := os.NewFile(uintptr(pair[0]), "socket"), os.NewFile(uintptr(pair[1]), "socket")
	conn := must(net.FileConn(ours))(t).(*net.UnixConn)
	ours.Close()
	defer conn.Close()
	var in interface{ Close() error }
	c := startWith(t, func(cmd *exec.Cmd) { in, _ = cmd.StdinPipe(); cmd.ExtraFiles = []*os.File{theirs} }, "sender", name)
	defer in.Close()
	theirs.Close()
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	// Wait until the description is in flight, and leave it there.
	raw := must(conn.SyscallConn())(t)
	var peeked error
	err := raw.Read(func(fd uintptr) bool {
		_, _, peeked = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return peeked != unix.EAGAIN
	})
	if err = errors.Join(err, peeked); err != nil {
		t.Fatal(err)
	}
	c.killed(t)
	text, rights := make([]byte, 200), make([]byte, 200)
	n, k, _, _, err := conn.ReadMsgUnix(text, rights)
	if err != nil {
		t.Fatal(err)
	}
	var id, at, length uint64
	if _, err := fmt.Sscan(string(text[:n]), &id, &at, &length); err != nil {
		t.Fatal(err)
	}
	alive := func(want bool, when string) {
		t.Helper()
		gone, err := over(watch, id)
		for start := time.Now(); err == nil && gone == want && !want && time.Since(start) < 5*time.Second; {
			gone, err = over(watch, id)
		}
		if err != nil || gone == want {
			t.Errorf("%s the lease has ended: %v, %v", when, gone, err)
		}
	}
	alive(true, "while nobody but the sender, who is dead, had the description:")
	msgs := must(unix.ParseSocketControlMessage(rights[:k]))(t)
	fds := must(unix.ParseUnixRights(&msgs[0]))(t)
	mem := must(unix.Mmap(fds[0], int64(at), int(length), unix.PROT_READ, unix.MAP_SHARED))(t)
	unix.Close(fds[0])
	alive(true, "after close(2) of the mapped description:")
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
	filler := fill(t, m)
	filler.Close()
	if err := check(mem, 3, 0); err != nil || binary.NativeEndian.Uint64(mem) != word(3, 0, 0) {
		t.Errorf("the receiver's mapping begins with %#x: %v", mem[:8], err)
	}
	alive(true, "with the filesystem full:")
	if err := unix.Munmap(mem); err != nil {
		t.Fatal(err)
	}
	alive(false, "after munmap(2)")
	ends(t, m)
}
