package programs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// copiers lists programs that copy the tree $1 to the new directory $2 with all attributes of its
// files.
var copiers = []struct{ name, script string }{
	{"cp", `cp -a -- "$1" "$2"`},
	{"rsync", `rsync -aHAXS --numeric-ids "$1/" "$2/"`},
	{"rsync-inplace", `rsync -aHAX --numeric-ids --inplace --no-whole-file "$1/" "$2/" && rsync -aHAX --numeric-ids --inplace --no-whole-file -I "$1/" "$2/"`},
	{"tar", `mkdir "$2" && tar --xattrs --xattrs-include='*' --acls --sparse -C "$1" -cf - . | tar --xattrs --xattrs-include='*' --acls --numeric-owner -C "$2" -xpf -`},
}

// TestRoundTrips copies a tree with every kind of file and attribute from the control to the mount,
// on the mount and back, by each program that claims to keep all of them, and compares the trees by
// getfattr, getfacl, find and rsync.
func TestRoundTrips(t *testing.T) {
	harness.Need(t, "cp", "rsync", "tar", "setfattr", "getfattr", "setfacl", "getfacl", "find", "mkfs.ext4", "mount")
	mount := harness.New(t, 512<<20, choose(2*time.Minute, 10*time.Minute))
	ctl := newControl(t, mount, 512<<20)
	if ctl.Kind != "ext4" {
		t.Fatalf("the control is %s, on which not everything can be made", ctl.Kind)
	}
	source := filepath.Join(ctl.Dir, "source")
	everything(t, source)
	want := describe(t, source)
	for _, copier := range copiers {
		t.Run(copier.name, func(t *testing.T) {
			step := func(from, to string) {
				t.Helper()
				harness.Run(t, time.Minute, "", nil, "bash", "-c", "set -eo pipefail; umask 077; "+copier.script, "sh", from, to)
				got := describe(t, to)
				for i, what := range []string{"getfattr", "getfacl", "find"} {
					if got[i] != want[i] {
						t.Errorf("%s of %s:\n%s", what, to, strings.ReplaceAll(difference(got[i], want[i]), "control:", "wanted: "))
					}
				}
				var stat unix.Stat_t
				if err := unix.Stat(filepath.Join(to, "sparse"), &stat); err != nil || copier.name != "rsync-inplace" && stat.Blocks > 2048 {
					t.Errorf("the sparse file takes %d KiB (%v)", stat.Blocks/2, err)
				}
				if out := harness.Run(t, time.Minute, "", nil, "rsync", "-aHAXcn", "--delete", "-i", source+"/", to+"/"); out != "" {
					t.Errorf("rsync would change\n%s", out)
				}
			}
			there, on, back := mount.Path(copier.name), mount.Path(copier.name+"-2"), filepath.Join(ctl.Dir, copier.name)
			step(source, there)
			step(there, on)
			step(on, back)
		})
	}
	mount.Again()
	for _, copier := range copiers {
		if got := describe(t, mount.Path(copier.name+"-2")); got != want {
			t.Errorf("%s: after a remount:\n%s", copier.name, difference(strings.Join(got[:], "\n"), strings.Join(want[:], "\n")))
		}
	}
}

// everything makes a tree with the attributes that copies tend to lose.
func everything(t *testing.T, dir string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(script string) {
		t.Helper()
		harness.Run(t, time.Minute, dir, nil, "bash", "-euc", script)
	}
	must(os.Mkdir(dir, 0o755))
	for i := range 40 {
		sub := filepath.Join(dir, fmt.Sprintf("dir%d", i%8))
		must(os.MkdirAll(sub, 0o755))
		must(os.WriteFile(filepath.Join(sub, fmt.Sprintf("file%d", i)), bytes.Repeat([]byte{byte('a' + i%26)}, i*i*97), os.FileMode(0o600|i)))
	}
	// Names with unusual bytes, a name of 255 bytes, and links with targets that do not exist.
	must(os.WriteFile(filepath.Join(dir, "\x01\t\n \"'\\\x7f\xff\xfe*?"), []byte("name"), 0o644))
	must(os.WriteFile(filepath.Join(dir, strings.Repeat("n", 255)), []byte("long"), 0o644))
	must(os.Symlink(strings.Repeat("../", 1300)+"nowhere", filepath.Join(dir, "long link")))
	must(os.Symlink("nowhere", filepath.Join(dir, "link")))
	must(os.Lchown(filepath.Join(dir, "link"), 12345, 54321))
	for i, name := range []string{"fifo", "char", "block", "socket"} {
		must(unix.Mknod(filepath.Join(dir, name), []uint32{unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO}[i]|0o640, int(unix.Mkdev(uint32(i*300), uint32(i*70000)))))
	}
	for i := range 3 {
		must(os.Link(filepath.Join(dir, "dir1/file1"), filepath.Join(dir, fmt.Sprintf("hard%d", i))))
	}
	// Holes at the beginning, in the middle and at the end.
	file, err := os.Create(filepath.Join(dir, "sparse"))
	must(err)
	_, err = file.WriteAt([]byte("middle"), 5<<20)
	must(err)
	must(file.Truncate(20 << 20))
	must(file.Close())
	run(`
		chown 1:2 dir2; chown 4294967294:4294967294 dir2/file2; chown -R 1000:1000 dir3
		chmod 6755 dir1/file9; chmod 1777 dir4; chmod 2775 dir5; chmod 0 dir6/file6; chmod 4711 dir1/file17
		setfacl -m u:1000:rwx,g:2000:r-x,u:4000000000:--x,m::rwx dir0/file0
		setfacl -m u:1:r dir0/file8
		setfacl -m u:1000:r-x,g:3000:--- dir1
		setfacl -d -m u:1000:rwx,g:2000:r-x,o::--- dir1
		for i in $(seq 1 60); do setfacl -m u:$((5000+i)):r-- dir0/file16; done
		setfattr -n user.plain -v value dir2/file10
		setfattr -n user.empty dir2/file10
		setfattr -n user.binary -v 0x00ff00010203 dir2/file10
		setfattr -n user.$(printf 'x%.0s' $(seq 1 250)) -v long dir2/file10
		setfattr -n user.large -v 0s$(head -c 3000 /dev/zero | base64 -w0) dir2/file18
		for i in $(seq 1 50); do setfattr -n user.n$i -v v$i dir2/file26; done
		setfattr -n trusted.root -v secret dir2/file2
		setfattr -n security.test -v label dir2/file2
		setfattr -h -n trusted.onlink -v link link
		setfattr -n trusted.onfifo -v fifo fifo
		setfattr -n user.ondir -v dir dir3
		setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 dir3/file3
		touch -h -d '1970-01-01 00:00:00.000000001' link; touch -d '1969-12-31 00:00:01.5' dir2/file2
		touch -d '2038-01-19 03:14:08.999999999' dir2/file10; touch -d '2200-02-03 04:05:06.123456789' dir3
		touch -d '1999-12-31 23:59:59.000000042' dir6/file6 dir5 dir4`)
}

// describe returns the output of getfattr, getfacl and find for a tree.
func describe(t *testing.T, dir string) (d [3]string) {
	t.Helper()
	each := func(cmd string) string {
		t.Helper()
		return harness.Run(t, time.Minute, dir, []string{"LC_ALL=C"}, "bash", "-c",
			`set -eo pipefail; find . -print0 | sort -z | `+cmd)
	}
	d[0] = blocks(each(`xargs -0 getfattr -h -d -m - -e hex --`))
	d[1] = each(`xargs -0 getfacl -n -P --`)
	// Sizes and link counts of directories depend on the filesystem.
	d[2] = each(`xargs -0 -I{} find {} -maxdepth 0 \( -type d -printf '%p %y %m %U:%G %T@\n' \) -o -printf '%p %y %m %U:%G %T@ %n %s -> %l\n'`)
	// Device numbers, which find does not print.
	d[2] += each(`xargs -0 stat -c '%n %t:%T' -- | grep -E '(char|block) '`)
	return d
}

// blocks sorts the lines of each paragraph: a filesystem lists attributes in its own order.
func blocks(s string) string {
	var out []string
	for _, b := range strings.Split(s, "\n\n") {
		l := strings.Split(strings.TrimSpace(b), "\n")
		if len(l) > 1 {
			slices.Sort(l[1:])
			for _, a := range l[1:] {
				out = append(out, l[0]+" "+a)
			}
		}
	}
	return strings.Join(out, "\n")
}
