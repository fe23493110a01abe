package guest

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/oracle"
)

// hold takes a reference to a file by NFS without opening it: the client keeps its handle, the
// server keeps nothing.
func (e *nfsExport) hold(t *testing.T, name string) int {
	t.Helper()
	fd, err := unix.Open(e.remote(name), unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// statHeld returns the server's attributes of the file of a held handle.
func statHeld(fd int) (st unix.Stat_t, err error) {
	return st, unix.Fstatat(fd, "", &st, unix.AT_EMPTY_PATH)
}

// lookups returns how many LOOKUP requests for a name the daemon has logged.
func (e *nfsExport) lookups(t *testing.T, name string) (n int) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(e.m.Dir, "log"))
	must(t, err)
	for line := range bytes.Lines(b) {
		if bytes.Contains(line, []byte(`"LOOKUP"`)) && bytes.Contains(line, []byte(`"name":`+strconv.Quote(name))) {
			n++
		}
	}
	return n
}

// handles checks that the server can decode handles when its kernel has dropped the inode. The
// kernel then asks the daemon for "." of the file, and for ".." of each directory up to the root.
func (e *nfsExport) handles(t *testing.T) {
	must(t, os.MkdirAll(e.remote("a/b/c"), 0o755), os.WriteFile(e.remote("a/b/c/f"), []byte("content"), 0o644))
	file, dir := e.hold(t, "a/b/c/f"), e.hold(t, "a/b/c")
	dropped := func(what string, use func() error) {
		t.Helper()
		before := e.lookups(t, what)
		until(t, "the kernel to look "+what+" up", func() bool {
			run(t, "exportfs", "-f") // close the files that the server keeps open
			must(t, os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0), use())
			return e.lookups(t, what) > before
		})
	}
	dropped(".", func() error {
		st, err := statHeld(file)
		if err == nil && st.Size != 7 {
			t.Errorf("by its handle the file has %d bytes", st.Size)
		}
		return err
	})
	dropped("..", func() error {
		if err := unix.Mkdirat(dir, "g", 0o755); err != nil {
			return err
		}
		return unix.Renameat(dir, "g", dir, "h")
	})
	if st, err := os.Stat(e.local("a/b/c/h")); err != nil || !st.IsDir() {
		t.Errorf("what was made by the directory's handle: %v", err)
	}
	must(t, os.Rename(e.local("a/b/c"), e.local("a/moved")))
	fd, err := unix.Openat(dir, "f", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	b := make([]byte, 7)
	if n, err := unix.Read(fd, b); err != nil || string(b[:n]) != "content" {
		t.Errorf("in a directory that was moved: %q, %v", b, err)
	}
}

// stale checks that the handle of a deleted file is refused, also when another file has its inode
// number.
func (e *nfsExport) stale(t *testing.T) {
	must(t, os.WriteFile(e.remote("first"), []byte("1"), 0o644), os.WriteFile(e.remote("second"), []byte("2"), 0o644), os.Mkdir(e.remote("third"), 0o755))
	first, second, third := e.hold(t, "first"), e.hold(t, "second"), e.hold(t, "third")
	st, err := statHeld(second)
	must(t, err, os.Remove(e.local("first")), os.Remove(e.local("second")), os.Remove(e.local("third")))
	until(t, "ESTALE", func() bool {
		_, err := statHeld(first)
		if err != nil && err != unix.ESTALE {
			t.Fatalf("a file that is gone: %v", err)
		}
		return err == unix.ESTALE
	})
	if err := unix.Mkdirat(third, "d", 0o755); err != unix.ESTALE && err != unix.ENOENT {
		t.Errorf("in a directory that is gone: %v", err)
	}
	// A client that got ESTALE does not ask again, so the other handle is used below.
	must(t, os.Mkdir(e.local("again"), 0o755))
	n := 0
	until(t, "the inode number to be used again", func() bool {
		n++
		name := filepath.Join(e.local("again"), strconv.Itoa(n))
		must(t, os.WriteFile(name, []byte("another"), 0o644))
		var now unix.Stat_t
		must(t, unix.Lstat(name, &now))
		return now.Ino == st.Ino
	})
	if got, err := statHeld(second); err != unix.ESTALE {
		t.Errorf("its number is another file's: %v, size %d; want ESTALE", err, got.Size)
	}
	must(t, os.RemoveAll(e.local("again")))
}

// restart checks that open files and held handles of the client still work after the filesystem was
// unmounted and mounted again, and after the daemon was killed.
func (e *nfsExport) restart(t *testing.T) {
	must(t, os.MkdirAll(e.remote("x/y"), 0o755), os.WriteFile(e.remote("x/y/open"), []byte("content"), 0o644), os.WriteFile(e.remote("x/y/held"), []byte("held"), 0o644))
	open, err := os.OpenFile(e.remote("x/y/open"), os.O_RDWR, 0)
	must(t, err)
	defer open.Close()
	unsynced, err := os.Create(e.remote("x/y/unsynced"))
	must(t, err)
	defer unsynced.Close()
	held, dir := e.hold(t, "x/y/held"), e.hold(t, "x/y")
	if e.v == nfs4 { // with version 4 the server keeps files open for as long as the client
		run(t, "exportfs", "-f")
		if out := refused(t, "umount", e.m.Mountpoint); !strings.Contains(out, "in use") {
			t.Errorf("unmounting while the server has files open: %s", out)
		}
	}
	var want []byte
	for i, again := range []struct {
		what string
		do   func(t *testing.T)
	}{
		{"stopped server, restarted daemon", func(t *testing.T) {
			e.s.stop(t)
			e.m.Again()
			e.s.start(t)
		}},
		{"killed daemon, restarted server", func(t *testing.T) {
			e.m.Kill9()
			e.s.stop(t)
			e.m.Up()
			e.s.start(t)
		}},
	} {
		t.Run(again.what, func(t *testing.T) {
			more := oracle.Fill(uint64(i), 300_000)
			_, err := unsynced.Write(more)
			must(t, err)
			want = append(want, more...)
			if i > 0 { // requests to a server whose daemon is dead fail
				must(t, unsynced.Sync())
			}
			again.do(t)
			must(t, unsynced.Sync())
			if got, err := os.ReadFile(e.local("x/y/unsynced")); err != nil || !bytes.Equal(got, want) {
				t.Errorf("bytes written before the restart differ after it and fsync: %d bytes of %d (%v)", len(got), len(want), err)
			}
			buf := make([]byte, 7)
			if _, err := open.ReadAt(buf, 0); err != nil || string(buf) != "content" {
				t.Errorf("the open file has %q (%v)", buf, err)
			}
			_, err = open.WriteAt([]byte{byte('0' + i)}, 7)
			must(t, err, open.Sync())
			if content, err := os.ReadFile(e.local("x/y/open")); err != nil || string(content) != "content"+string(rune('0'+i)) {
				t.Errorf("the open file, written to, is %q (%v)", content, err)
			}
			if stat, err := statHeld(held); err != nil || stat.Size != 4 {
				t.Errorf("the held file: %v, %d bytes", err, stat.Size)
			}
			must(t, unix.Mkdirat(dir, "made", 0o755))
			if _, err := os.Stat(e.local("x/y/made")); err != nil {
				t.Errorf("made by the held directory: %v", err)
			}
			must(t, unix.Unlinkat(dir, "made", unix.AT_REMOVEDIR))
		})
	}
}
