package programs

import (
	"archive/tar"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// A treeWriter makes a tree like that of a kernel's sources, the same one each time, and counts
// what it makes.
type treeWriter struct {
	rng     *rand.Rand
	entries []*tar.Header

	files, dirs, links int
	bytes              int64
}

// writeTree writes the tree as an archive. Sizes are lognormal, like those of Linux's sources: half
// of the files are below 2.5 KiB, the mean is about 6 KiB, the largest have some hundred KiB. A
// directory has 16 files on average, few have hundreds, and the tree is up to eight levels deep.
func writeTree(name string, files int) (*treeWriter, error) {
	w := &treeWriter{rng: rand.New(rand.NewPCG(1, 70000))}
	dirs := []string{"tree"}
	w.dir("tree")
	for w.files < files {
		// Younger directories are likelier to get a subdirectory, so that the tree gets deep.
		parent := dirs[len(dirs)-1-int(float64(len(dirs))*math.Pow(w.rng.Float64(), 2))]
		if d := depth(parent); d >= 8 {
			continue
		}
		dir := fmt.Sprintf("%s/%s", parent, w.name("dir"))
		dirs = append(dirs, dir)
		w.dir(dir)
		last := ""
		for n := min(int(math.Exp(2.0+1.25*w.rng.NormFloat64())), 2000, files-w.files); n > 0; n-- {
			last = fmt.Sprintf("%s/%s.%s", dir, w.name("f"), []string{"c", "h", "rst", "dts", "sh", "txt"}[w.rng.IntN(6)])
			w.file(last)
		}
		if last != "" && w.rng.IntN(8) == 0 {
			w.link(dir, last)
		}
	}
	return w, w.write(name)
}

// write writes the archive: a directory with everything below it before the next one, and files
// before links to them.
func (w *treeWriter) write(name string) error {
	slices.SortFunc(w.entries, func(a, b *tar.Header) int {
		return slices.Compare(strings.Split(strings.TrimSuffix(a.Name, "/"), "/"), strings.Split(strings.TrimSuffix(b.Name, "/"), "/"))
	})
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	t, content := tar.NewWriter(f), rand.NewChaCha8([32]byte{7})
	for _, h := range w.entries {
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.CopyN(t, content, h.Size); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return f.Close()
}

func (w *treeWriter) add(h tar.Header) {
	h.ModTime = time.Unix(1.1e9+w.rng.Int64N(6e8), w.rng.Int64N(1e9)) // a different time for each entry, with nanoseconds
	h.Format = tar.FormatPAX
	w.entries = append(w.entries, &h)
}

func depth(name string) (n int) {
	for ; name != "."; name = filepath.Dir(name) {
		n++
	}
	return n
}

func (w *treeWriter) name(kind string) string {
	const letters = "abcdefghijklmnopqrstuvwxyz-_0123456789"
	b := make([]byte, 2+w.rng.IntN(14)+w.rng.IntN(2)*w.rng.IntN(20))
	for i := range b {
		b[i] = letters[w.rng.IntN(len(letters))]
	}
	return fmt.Sprintf("%s%d%s", kind, w.files+w.dirs, b)
}

func (w *treeWriter) dir(name string) {
	w.dirs++
	w.add(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
}

func (w *treeWriter) file(name string) {
	size := min(int64(math.Exp(math.Log(choose(2500.0, 6500.0))+1.35*w.rng.NormFloat64())), 1<<20)
	if w.rng.IntN(100) == 0 {
		size = 0
	}
	mode := int64(0o644)
	if w.rng.IntN(20) == 0 {
		mode = 0o755
	}
	w.files++
	w.bytes += size
	w.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: mode, Uid: w.rng.IntN(3), Gid: w.rng.IntN(3)})
}

// link adds a symbolic link to a file in the same directory, or now and then a hard link.
func (w *treeWriter) link(dir, to string) {
	w.links++
	h := tar.Header{Typeflag: tar.TypeSymlink, Name: dir + "/" + w.name("l"), Linkname: filepath.Base(to), Mode: 0o777}
	if w.rng.IntN(4) == 0 {
		h.Typeflag, h.Linkname = tar.TypeLink, to
	}
	w.add(h)
}

// TestTree unpacks a tree of source files on the mount, compares it with the same tree unpacked on
// tmpfs, packs it again, copies it on the mount, and removes everything. With -long the tree is as
// large as Linux's: 80 000 files of 1.3 GB.
func TestTree(t *testing.T) {
	harness.Need(t, "tar", "rsync", "diff", "cp", "rm", "cmp", "mkfs.ext4", "mount")
	mount := harness.New(t, choose[int64](1<<30, 4<<30), choose(3*time.Minute, 30*time.Minute))
	ctl := newControl(t, mount, choose[int64](1<<30, 4<<30))
	ram := scratch(t, mount, "ram", choose[int64](512<<20, 4<<30))
	archive := filepath.Join(ram, "tree.tar")
	tree, err := writeTree(archive, choose(5000, 80000))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files of %d MiB in %d directories, %d links", tree.files, tree.bytes>>20, tree.dirs, tree.links)
	limit := choose(time.Minute, 10*time.Minute)
	timed := func(dir, name string, args ...string) time.Duration {
		t.Helper()
		start := time.Now()
		if out := harness.Run(t, limit, dir, nil, name, args...); out != "" && name != "tar" {
			t.Fatalf("%s prints\n%s", name, out[:min(len(out), 8<<10)])
		}
		return round(time.Since(start))
	}
	timed(ram, "tar", "-xpf", archive)
	source := filepath.Join(ram, "tree")
	before := mount.Stats()
	same := func(when, dir string) {
		t.Helper()
		if *long {
			timed("", "diff", "-r", "--no-dereference", source, dir)
		}
		// -H compares hard links, -i prints what rsync would change.
		timed("", "rsync", "-aHAXcn", "--delete", "-i", source+"/", dir+"/")
		if t.Failed() {
			t.Fatal(when)
		}
	}
	measure := func(dir string, check bool) string {
		t.Helper()
		unpack := timed(dir, "sh", "-c", `tar -xpf "$1" && sync -f .`, "sh", archive) // sync for the control; on the mount, everything is durable already
		if check {
			same("unpacked", filepath.Join(dir, "tree"))
			mount.Again()
			same("after a remount", filepath.Join(dir, "tree"))
		}
		read := timed(dir, "sh", "-c", "tar -cf - tree | cat >/dev/null")
		copied := timed(dir, "sh", "-c", "cp -a tree copy && sync -f .")
		if check {
			same("copied", filepath.Join(dir, "copy"))
		}
		status := timed(dir, "sh", "-c", `[ "$(find . -type f -size +0 | wc -l)" -gt 1000 ]`)
		return fmt.Sprintf("tar -x %v, tar -c %v, cp -a %v, find %v, rm -r %v", unpack, read, copied, status, timed(dir, "rm", "-r", "tree", "copy"))
	}
	theirs := measure(ctl.Dir, false)
	ours := measure(mount.Mountpoint, true)
	t.Logf("%-5s %s", ctl.Kind, theirs)
	t.Logf("%-5s %s", "daxfsd", ours)
	empty(t, mount)
	after := mount.Stats()
	// Inodes and directories took metadata blocks, which stay metadata.
	if lost := int64(before.FreeBlocks) - int64(after.FreeBlocks) - int64(after.FreeMetaBlocks); lost > int64(before.Blocks)/50 {
		t.Errorf("of %d free blocks, %d did not come back: %+v", before.FreeBlocks, lost, after)
	}
}
