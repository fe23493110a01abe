package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/daxfsd/daxfsd/fs"
)

var write = flag.Bool("write", false, "write the images that are missing")

// kinds are the images that each release adds; see the package comment.
var kinds = map[string]func(*testing.T) []byte{"clean": buildClean, "crashed": buildCrashed, "atomic": buildAtomic, "features": buildFeatures}

// release is the version whose images -write builds.
const release = "0.1.0"

// TestImages checks, mounts, reads and then uses the images of every version.
func TestImages(t *testing.T) {
	images, err := filepath.Glob("testdata/*.img.gz")
	if err != nil || len(images) < len(kinds) {
		t.Fatalf("%d images in testdata, %v; want %d at least", len(images), err, len(kinds))
	}
	for _, image := range images {
		name := strings.TrimSuffix(image, ".img.gz")
		t.Run(filepath.Base(name), func(t *testing.T) {
			manifest, err := os.ReadFile(name + ".txt")
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Split(string(manifest), "\n")
			r := load(t, image)
			rep := check(t, r)
			compare(t, "fsck", strings.Split(facts(rep), "\n")[:2], want[:2])
			want = want[2:]

			if rep.Clean {
				f := mount(t, r, fs.Options{ReadOnly: true})
				compare(t, "read-only", strings.Split(tree(t, f), "\n"), want)
				unmount(t, f)
			}
			// The first mount recovers or uses the image's own free map, the second uses the map of
			// this version, the third none.
			for _, how := range []struct {
				name string
				o    fs.Options
			}{{"mounted", fs.Options{}}, {"mounted again", fs.Options{}}, {"mounted by a scan", fs.Options{Scan: true}}} {
				f := mount(t, r, how.o)
				compare(t, how.name, strings.Split(tree(t, f), "\n"), want)
				unmount(t, f)
				if rep := check(t, r); !rep.Clean {
					t.Errorf("%s: not clean after it was unmounted", how.name)
				}
			}
			use(t, mount(t, r, fs.Options{Atomic: true}))
			check(t, r)
		})
	}
}

// compare reports the first lines that differ.
func compare(t *testing.T, what string, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		g, w := "nothing", "nothing"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Fatalf("%s: line %d differs from the manifest\nfound    %s\nexpected %s", what, i+1, g, w)
		}
	}
}

// use changes a filesystem and unmounts it: it creates, writes, clones and deletes files.
func use(t *testing.T, f *fs.FS) {
	t.Helper()
	w := &writer{t: t, f: f}
	w.mkdir("/used", 0o755)
	for _, n := range []string{"a", "b", "c", "d"} {
		w.file("/used/"+n, 40_000)
	}
	w.clone("/used/a", "/used/b")
	w.xattr("/used/b", "user.long", pattern(9, 0, 5000))
	w.unlink("/used/a")
	w.close()
	unmount(t, f)
}

// TestBuild builds every kind of image and checks that it shows what it is for, so that the
// builders keep working. With -write it writes the images that are missing.
func TestBuild(t *testing.T) {
	for kind, build := range kinds {
		t.Run(kind, func(t *testing.T) {
			region := build(t)
			r := regionOf(t, region)
			manifest := facts(check(t, r))
			f := mount(t, r, fs.Options{})
			manifest += tree(t, f)
			unmount(t, f)
			name := filepath.Join("testdata", release+"-"+kind)
			switch _, err := os.Stat(name + ".img.gz"); {
			case *write && os.IsNotExist(err):
				save(t, name+".img.gz", region)
				if err := os.WriteFile(name+".txt", []byte(manifest), 0o644); err != nil {
					t.Fatal(err)
				}
			case err != nil:
				t.Fatalf("%v; -write makes it", err)
			}
			shows(t, kind, manifest)
		})
	}
}

// shows checks that a manifest has what its image is for.
func shows(t *testing.T, kind, manifest string) {
	t.Helper()
	for _, want := range map[string][]string{
		"clean":    {"clean true, free map true", "unwritten", "target", "rdev 66307", "times -9", "flags 0x10 ", "project 7"},
		"crashed":  {"clean false, free map false", "orphans 2, interrupted truncations 1", "/created before the failure"},
		"atomic":   {"clean false", "/logged"},
		"features": {"folio of order 6", "folio of order 3", "shared", "bad blocks 3", "system.posix_acl_access", "system.posix_acl_default", "user.long 65536 bytes"},
	}[kind] {
		if !strings.Contains(manifest, want) {
			t.Errorf("the manifest has no %q:\n%s", want, manifest[:min(2000, len(manifest))])
		}
	}
}
