package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// copyUnaligned copies a file by copy_file_range from an unaligned offset, so that no block can be
// shared.
func copyUnaligned(args []string) error {
	from, err := os.Open(args[0])
	if err != nil {
		return err
	}
	to, err := os.Create(args[1])
	if err != nil {
		return err
	}
	fmt.Println("copying")
	for off, n := int64(1), 1; n > 0; {
		if n, err = unix.CopyFileRange(int(from.Fd()), &off, int(to.Fd()), nil, 1<<30, 0); err != nil {
			return err
		}
	}
	fmt.Println("done")
	return nil
}

// TestKilledCopy checks that a process that is killed in a long call ends at once, on both
// transports, and that the part the call had done is whole.
func TestKilledCopy(t *testing.T) {
	const size = 800 << 20
	eachTransport(t, 2<<30, 3*time.Minute, func(t *testing.T, m *harness.Mount) {
		harness.Run(t, time.Minute, "", nil, "dd", "if=/dev/zero", "of="+m.Path("from"), "bs=1M", fmt.Sprintf("count=%d", size>>20), "status=none")
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		cmd := harness.Child(ctx, "copy-unaligned", m.Path("from"), m.Path("to"))
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		line := make([]byte, len("copying\n"))
		if _, err := out.Read(line); err != nil || string(line) != "copying\n" {
			t.Fatalf("%q, %v", line, err)
		}
		time.Sleep(50 * time.Millisecond)
		killed := time.Now()
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		err = cmd.Wait()
		took := time.Since(killed)
		if _, was := err.(*exec.ExitError); !was {
			t.Fatalf("it was done before it was killed: %v", err)
		}
		if took > 2*time.Second {
			t.Errorf("killed, it went on for %v", took)
		}
		st, err := os.Stat(m.Path("to"))
		if err != nil || st.Size() >= size-1 {
			t.Errorf("a killed copy has %d bytes of %d: %v", st.Size(), size-1, err)
		}
		t.Logf("gone %v after SIGKILL, %d MiB of %d copied", took.Round(time.Millisecond), st.Size()>>20, size>>20)
		m.Again()
	})
}

// TestCloseKeepsTimes checks that the lazily kept time of a write in place becomes durable soon
// after the last close.
func TestCloseKeepsTimes(t *testing.T) {
	m := harness.New(t, 64<<20, time.Minute)
	name := m.Path("f")
	if err := os.WriteFile(name, make([]byte, 8192), 0o644); err != nil {
		t.Fatal(err)
	}
	m.Again()
	old := time.Unix(1e9, 0)
	if err := os.Chtimes(name, old, old); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	before := operations(t, m)["RELEASE"].Count
	f.Close()
	for start := time.Now(); operations(t, m)["RELEASE"].Count == before; time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			t.Fatal("10 s after the close there was no RELEASE")
		}
	}
	st, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	m.Kill9()
	m.Up()
	if after, err := os.Stat(name); err != nil || !after.ModTime().Equal(st.ModTime()) || after.ModTime().Equal(old) {
		t.Errorf("the time of a write was %v, and is %v after the daemon was killed: %v", st.ModTime(), after.ModTime(), err)
	}
}

// TestAtimeOptions checks which reads change the access time, through the mount and across a
// remount.
func TestAtimeOptions(t *testing.T) {
	for option, want := range map[string][2]bool{ // whether the first and the second read of a changed file do
		"relatime": {true, false}, "strictatime": {true, true}, "noatime": {false, false},
	} {
		t.Run(option, func(t *testing.T) {
			m := harness.NewWith(t, option, 64<<20, time.Minute)
			name := m.Path("f")
			if err := os.WriteFile(name, make([]byte, 8192), 0o644); err != nil {
				t.Fatal(err)
			}
			atime := func() unix.Timespec {
				var st unix.Statx_t
				if err := unix.Statx(unix.AT_FDCWD, name, unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st); err != nil {
					t.Fatal(err)
				}
				return unix.Timespec{Sec: st.Atime.Sec, Nsec: int64(st.Atime.Nsec)}
			}
			for i, want := range want {
				before := atime()
				time.Sleep(5 * time.Millisecond)
				if _, err := os.ReadFile(name); err != nil {
					t.Fatal(err)
				}
				if after := atime(); (after != before) != want {
					t.Errorf("read %d: atime %v, then %v", i+1, before, after)
				}
			}
			before := atime()
			m.Again()
			if after := atime(); after != before {
				t.Errorf("atime %v became %v by a remount", before, after)
			}
		})
	}
}
