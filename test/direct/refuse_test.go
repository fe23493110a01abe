package direct

import (
	"bytes"
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

// refused requires that err is want and one sentence.
func refused(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// TestRefused checks what Open and Map refuse, by options of the mount. What is refused can be read
// and written the normal way.
func TestRefused(t *testing.T) {
	for _, c := range []struct {
		options             string
		open, mapped, write error // of Open, of Map to read and to write
	}{
		{"direct=off", direct.ErrRefused, nil, nil},
		{"dax=never", direct.ErrRefused, nil, nil},
		{"direct=ro", nil, nil, direct.ErrRefused},
		{"atomic", nil, nil, direct.ErrRefused},
		{"direct=rw", nil, nil, nil},
	} {
		t.Run(c.options, func(t *testing.T) {
			m := harness.NewWith(t, c.options, 64<<20, limit)
			create(t, m.Path("f"), 1, 8192)
			f, err := os.OpenFile(m.Path("f"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			d, err := direct.Open(f)
			if c.open != nil {
				refused(t, "Open", err, c.open)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			for _, write := range []bool{false, true} {
				want := c.mapped
				if write {
					want = c.write
				}
				mp, err := d.Map(0, 8192, direct.MapOptions{Write: write})
				if want != nil {
					refused(t, fmt.Sprintf("Map, write %v", write), err, want)
				} else if err != nil {
					t.Errorf("Map, write %v: %v", write, err)
				}
				if err == nil {
					mp.Close()
				}
			}
			normal := d.Normal()
			b := make([]byte, 8192)
			if n, err := d.WriteAt([]byte("written"), 100); n != 7 || err != nil {
				t.Errorf("WriteAt: %d, %v", n, err)
			}
			if n, err := d.ReadAt(b, 0); n != 8192 || err != nil || string(b[100:107]) != "written" || b[99] != 1 || b[107] != 1 {
				t.Errorf("ReadAt: %d, %v", n, err)
			}
			if got := d.Normal() - normal; (got > 0) != (c.write != nil) {
				t.Errorf("%d calls went the normal way", got)
			}
		})
	}
}

// TestRefusedFiles checks what Open and Map refuse, by the file and the range.
func TestRefusedFiles(t *testing.T) {
	harness.Need(t, "chattr")
	m := harness.New(t, 64<<20, limit)
	for _, name := range []string{"f", "immutable", "append"} {
		create(t, m.Path(name), 1, 10000)
	}
	if err := os.Mkdir(m.Path("dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(m.Path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Run(t, time.Minute, "", nil, "chattr", "+i", m.Path("immutable"))
	harness.Run(t, time.Minute, "", nil, "chattr", "+a", m.Path("append"))
	defer harness.Run(t, time.Minute, "", nil, "chattr", "-ia", m.Path("immutable"), m.Path("append"))
	elsewhere := filepath.Join(t.TempDir(), "f")
	create(t, elsewhere, 1, 10000)
	for _, c := range []struct {
		name  string
		flags int
		err   error
	}{
		{m.Path("dir"), os.O_RDONLY, direct.ErrRefused},
		{m.Path("fifo"), os.O_RDWR, direct.ErrRefused},
		{elsewhere, os.O_RDWR, direct.ErrNotDaxfsd},
		{"/dev/null", os.O_RDWR, direct.ErrRefused},
		{m.Path("append"), os.O_WRONLY | os.O_APPEND, direct.ErrRefused},
	} {
		f, err := os.OpenFile(c.name, c.flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		d, err := direct.Open(f)
		refused(t, c.name, err, c.err)
		if err == nil {
			d.Close()
		}
		f.Close()
	}
	for _, name := range []string{"immutable", "append"} {
		d := open(t, m.Path(name), os.O_RDONLY)
		mp, err := d.Map(0, 10000, direct.MapOptions{})
		if err != nil || !bytes.Equal(mp.Bytes(), bytes.Repeat([]byte{1}, 10000)) {
			t.Errorf("%s to read: %v", name, err)
		} else {
			mp.Close()
		}
		_, err = d.Map(0, 10000, direct.MapOptions{Write: true})
		refused(t, name, err, direct.ErrRefused)
	}
	d := open(t, m.Path("f"), os.O_RDWR)
	if err := d.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what   string
		off, n int64
		o      direct.MapOptions
		err    error
	}{
		{"beyond the end", 1 << 20, 1, direct.MapOptions{}, direct.ErrRange},
		{"partly beyond the end", 0, 1<<20 + 1, direct.MapOptions{}, direct.ErrRange},
		{"a hole to write", 0, 1 << 20, direct.MapOptions{Write: true}, direct.ErrRange},
		{"between pages", 1, 1, direct.MapOptions{}, direct.ErrRange},
	} {
		_, err := d.Map(c.off, c.n, c.o)
		refused(t, c.what, err, c.err)
	}
	mp, err := d.Map(0, 1<<20, direct.MapOptions{Write: true, Allocate: true})
	if err != nil {
		t.Fatal(err)
	}
	if b := mp.Bytes(); !bytes.Equal(b[:10000], bytes.Repeat([]byte{1}, 10000)) || !bytes.Equal(b[10000:], make([]byte, 1<<20-10000)) {
		t.Error("what was allocated for the mapping is not zeros")
	}
	mp.Close()
}

// asNobody opens the file args[0] directly as a user without rights, and writes what it may to the
// standard output.
func asNobody(args []string) error {
	if err := syscall.Setresgid(65534, 65534, 65534); err != nil {
		return err
	}
	if err := syscall.Setresuid(65534, 65534, 65534); err != nil {
		return err
	}
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	d, err := direct.Open(f)
	if err != nil {
		fmt.Print("open: ", err)
		return nil
	}
	b := make([]byte, 1)
	if _, err := d.ReadAt(b, 0); err != nil {
		return err
	}
	reads := d.Normal()
	if _, err := d.WriteAt(b, 1); err != nil {
		return err
	}
	_, err = d.Map(0, 4096, direct.MapOptions{Write: true})
	fmt.Printf("%d %d %v", reads, d.Normal()-reads, err)
	return d.Close()
}

// TestNobody checks that the permission of the region decides what a user without rights may do
// directly, and that the errors say which permission is missing.
func TestNobody(t *testing.T) {
	m := harness.New(t, 64<<20, limit)
	create(t, m.Path("f"), 1, 8192)
	for path, mode := range map[string]os.FileMode{filepath.Dir(m.Dir): 0o711, m.Dir: 0o711, m.Path("f"): 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for mode, want := range map[os.FileMode][]string{
		0o600: {"open: ", direct.ErrRegion.Error(), m.Region, "to read it", "permission denied"},
		0o644: {"0 1 ", direct.ErrRegion.Error(), m.Region, "to read and write it", "permission denied"},
		0o666: {"0 0 <nil>"},
	} {
		if err := os.Chmod(m.Region, mode); err != nil {
			t.Fatal(err)
		}
		out := harness.RunChild(t, time.Minute, "as-nobody", m.Path("f"))
		for _, s := range want {
			if !strings.Contains(out, s) {
				t.Errorf("region with mode %o: %q, expected %q", mode, out, s)
			}
		}
	}
}
