package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminal opens a pseudo-terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 100})
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestProgressOnATerminal(t *testing.T) {
	master, slave := terminal(t)
	p := newProgress(slave)
	if p.out == nil {
		t.Fatal("a terminal was not recognised")
	}
	p.update("too early to be shown", 1, 100)
	p.start = time.Now().Add(-2 * barDelay)
	for i := range int64(100) {
		p.update("reading inodes", i, 100)
		time.Sleep(5 * time.Millisecond)
	}
	p.update("another stage", 50, 100)
	p.end()
	p.end()
	slave.Write([]byte("END\n"))
	got, buf := "", make([]byte, 1<<16)
	for !strings.Contains(got, "END") {
		n, err := master.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got += string(buf[:n])
	}
	if !strings.Contains(got, "reading inodes") || !strings.Contains(got, "%") || strings.Contains(got, "too early") {
		t.Errorf("the terminal saw %q", got)
	}
}

func TestProgressWithoutATerminal(t *testing.T) {
	rd, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer rd.Close()
	p := newProgress(w)
	p.start = time.Now().Add(-time.Hour)
	p.update("stage", 1, 100)
	p.end()
	w.Close()
	if n, _ := rd.Read(make([]byte, 10)); n != 0 {
		t.Error("progress was written to a pipe")
	}
}

func TestThrottled(t *testing.T) {
	var seen []string
	f := throttled(func(stage string, _, _ int64) { seen = append(seen, stage) })
	for range 1000 {
		f("a", 0, 1)
	}
	f("b", 0, 1)
	if len(seen) > 100 || seen[0] != "a" || seen[len(seen)-1] != "b" {
		t.Errorf("%d reports passed on, the last %q", len(seen), seen[len(seen)-1])
	}
}
