package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/fs/transport"
)

func TestTopRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	refused(t, daxfsd(t, "top", dir), 1, "no daxfsd is mounted", dir)
	refused(t, daxfsd(t, "top", dir+"/absent"), 1, "no daxfsd is mounted")
	refused(t, daxfsd(t, "top", "/proc"), 1, "no daxfsd is mounted")
	needFUSE(t)
	region, mp := newRegion(t), mountPoint(t)
	must(t, "mount", region, mp)
	refused(t, daxfsd(t, "top", region), 1, "is a region", mp)

	// A daemon that dies while top watches it, and one that is dead already.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := command(ctx, "top", "--json", "--interval", "100ms", mp)
	killed := make(chan error, 1)
	pid := daemonPID(t, mp)
	time.AfterFunc(2*time.Second, func() { killed <- syscall.Kill(pid, syscall.SIGKILL) })
	r := finish(t, cmd)
	refused(t, r, 1, "is gone", "daxfsd umount "+mp)
	if !strings.Contains(r.stdout, `"operations"`) {
		t.Errorf("it showed nothing before: %q", r.stdout)
	}
	if err := <-killed; err != nil {
		t.Fatal(err)
	}
	refused(t, daxfsd(t, "top", mp), 1, "is gone", "daxfsd umount "+mp)
	must(t, "umount", mp)
}

// TestTopPrints checks the fields that scripts rely on, and the output without a terminal.
func TestTopPrints(t *testing.T) {
	needFUSE(t)
	region, mp := newRegion(t), mountPoint(t)
	must(t, "mount", "-o", "transport=dev", region, mp)
	for _, args := range [][]string{{"--once"}, {}, {"--count", "2"}} {
		out := must(t, append([]string{"top", "--interval", "100ms", mp}, args...)...)
		for _, w := range []string{"daxfsd on " + mp + ": " + region, "by /dev/fuse", " of 31.", "inodes cached", "OPERATION", "GETXATTR", "\nall "} {
			if n := strings.Count(out, w); n == 0 || args != nil && n != max(1, len(args)) {
				t.Errorf("%v: %q is there %d times:\n%s", args, w, n, out)
			}
		}
		if strings.Contains(out, "\x1b") {
			t.Errorf("%v: escapes: %q", args, out)
		}
	}
	out := must(t, "top", "--json", "--count", "3", "--interval", "100ms", mp)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != 3 {
		t.Fatalf("%d lines:\n%s", len(lines), out)
	}
	for _, l := range lines {
		i := decode(t, l)
		if got, want := strings.Join(keys(i), " "), "grants leased_bytes leased_free_bytes mountpoint new_gc_cycles new_mallocs operations region runtime seconds size_bytes time total transport used_bytes"; got != want {
			t.Errorf("fields: %s, want %s", got, want)
		}
		has(t, i, map[string]any{"mountpoint": mp, "region": region, "transport": "dev"})
		if s := i["seconds"].(float64); s < .1 || s > 60 {
			t.Errorf("the interval took %v s", s)
		}
		g := i["operations"].(map[string]any)["GETXATTR"].(map[string]any)
		if got, want := strings.Join(keys(g), " "), "bytes bytes_per_second count errors in_flight max_ns negative p50_ns p90_ns p99_9_ns p99_ns per_second"; got != want {
			t.Errorf("fields of an operation: %s, want %s", got, want)
		}
		has(t, g, map[string]any{"count": 1.0, "errors": 0.0}) // the question of top itself
	}
	must(t, "umount", mp)
}

// TestTopLive runs top on a terminal, from the first screen to q.
func TestTopLive(t *testing.T) {
	needFUSE(t)
	region, mp := newRegion(t), mountPoint(t)
	must(t, "mount", region, mp)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := command(ctx, "top", "--interval", "100ms", mp)
	tty, slave := terminal(t)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Env = append(cmd.Env, "TERM=xterm-256color")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var seen bytes.Buffer
	pressed := map[string]bool{}
	press := func(after, key string) {
		if !pressed[key] && strings.Contains(ansi.Strip(seen.String()), after) {
			pressed[key] = true
			if _, err := tty.WriteString(key); err != nil {
				t.Error(err)
			}
		}
	}
	for buf := make([]byte, 4096); ; {
		n, err := tty.Read(buf)
		if err != nil { // no process has the other end open
			break
		}
		seen.Write(buf[:n])
		press("(by rate)", "s")
		press("p99)", "q")
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v, it showed %q", err, seen.String())
	}
	for _, want := range []string{"daxfsd on " + mp, "OPERATION", "GETXATTR"} {
		if !strings.Contains(ansi.Strip(seen.String()), want) {
			t.Errorf("%q is not in %q", want, seen.String())
		}
	}
	must(t, "umount", mp)
}

// someInterval returns an interval with 30 operations.
func someInterval(t *testing.T) *interval {
	t.Helper()
	was := &fusefs.Activity{Operations: transport.Stats{"OP1": {Count: 5, Latency: transport.Histogram{5}, Max: 100}}}
	now := &fusefs.Activity{Mountpoint: "/mnt", Region: "/dev/dax0.0", Transport: "uring", Used: 1 << 29, Size: 1 << 30, Since: time.Now().Add(-time.Minute),
		Operations: transport.Stats{}, Runtime: fusefs.Runtime{Mallocs: 7, GCCycles: 2}}
	for n := range uint64(30) {
		now.Operations[fmt.Sprint("OP", n)] = transport.Operation{Count: 10 + n, Errors: n, Bytes: n << 20, Latency: transport.Histogram{10, n}, Max: 150}
	}
	return newInterval(was, now, 2*time.Second)
}

func TestInterval(t *testing.T) {
	i := someInterval(t)
	if o := i.Operations["OP1"]; o.Count != 6 || o.Rate != 3 || o.DataRate != 1<<19 || o.P50 == 0 || o.Latency != nil {
		t.Errorf("%+v", o)
	}
	if i.Total.Count != 30*10+29*30/2-5 || i.Total.Bytes != 29*30/2<<20 || i.NewMallocs != 7 || i.NewGC != 2 {
		t.Errorf("%+v", i.Total)
	}
	head := strings.Join(i.head(), "\n")
	for _, w := range []string{"daxfsd on /mnt: /dev/dax0.0, by io_uring, up 1m0s", "512 MiB of 1 GiB used (50.0 %)"} {
		if !strings.Contains(head, w) {
			t.Errorf("%q is not in\n%s", w, head)
		}
	}
	all := i.table(byRate, -1)
	if l := strings.Split(all, "\n"); len(l) != 32 || !strings.HasPrefix(l[0], "OP29 ") || !strings.HasPrefix(l[30], "all ") || len(l[0]) != len(topHeader) {
		t.Errorf("by rate:\n%s", all)
	}
	if l := strings.Split(i.table(byName, 3), "\n"); len(l) != 4 || !strings.HasPrefix(l[0], "OP0 ") || !strings.HasPrefix(l[1], "OP1 ") || !strings.HasPrefix(l[2], "all ") {
		t.Errorf("three lines by name: %q", l)
	}
}

// TestTopModel checks that the live view fits the terminal, sorts, and ends.
func TestTopModel(t *testing.T) {
	var m tea.Model = &topModel{interval: time.Second}
	if !strings.Contains(m.View().Content, "watching") {
		t.Errorf("first %q", m.View().Content)
	}
	send := func(msg tea.Msg) (quit bool) {
		var cmd tea.Cmd
		m, cmd = m.Update(msg)
		if key, ok := msg.(tea.KeyPressMsg); !ok || key.String() == "s" {
			return false
		}
		_, quit = cmd().(tea.QuitMsg)
		return quit
	}
	m, _ = m.Update(tea.WindowSizeMsg{Width: 50, Height: 12})
	m, _ = m.Update(answered{i: someInterval(t)})
	screen := strings.Split(ansi.Strip(m.View().Content), "\n")
	if len(screen) != 12 || !strings.HasPrefix(screen[5], "OP29 ") || !strings.HasPrefix(screen[10], "all ") || !strings.Contains(screen[11], "q ends") {
		t.Errorf("12 lines:\n%s", strings.Join(screen, "\n"))
	}
	for _, l := range screen {
		if ansi.StringWidth(l) > 50 {
			t.Errorf("too wide: %q", l)
		}
	}
	send(tea.KeyPressMsg{Code: 's', Text: "s"})
	if screen := ansi.Strip(m.View().Content); !strings.Contains(screen, "(by p99)") {
		t.Errorf("sorted:\n%s", screen)
	}
	shown := someInterval(t)
	shown.Leased, shown.Grants = 8192, []fusefs.Grant{{PID: 17, Command: "slots", Mode: "rw", Bytes: 4096, State: fusefs.GrantMapped, Inode: 5}, {PID: 18, Mode: "ro", Bytes: 4096, State: fusefs.GrantMapped}}
	m, _ = m.Update(tea.WindowSizeMsg{Width: 50, Height: 20})
	m, _ = m.Update(answered{i: shown})
	screen = strings.Split(ansi.Strip(m.View().Content), "\n")
	if len(screen) != 20 || !strings.HasPrefix(screen[3], "grants  2 of 8 KiB to 2 processes; 8 KiB leased") || !strings.HasPrefix(screen[17], "17 ") || !strings.Contains(screen[17], "slots") {
		t.Errorf("with grants, 20 lines:\n%s", strings.Join(screen, "\n"))
	}
	if !send(tea.KeyPressMsg{Code: 'q', Text: "q"}) {
		t.Error("q does not end it")
	}
	end, cmd := m.Update(answered{err: os.ErrClosed})
	if _, quit := cmd().(tea.QuitMsg); !quit || end.(*topModel).err != os.ErrClosed {
		t.Error("an error does not end it")
	}
}

func TestFormatTime(t *testing.T) {
	for ns, want := range map[uint64]string{0: "0 ns", 999: "999 ns", 1000: "1.0 µs", 99_900: "99.9 µs", 100_000: "100 µs", 999_600: "1.0 ms", 12_345_678: "12.3 ms", 34e9: "34.0 s"} {
		if got := formatTime(ns); got != want {
			t.Errorf("%d ns is %q, want %q", ns, got, want)
		}
	}
}
