package machine

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// fetchLimit is how long making a guest may take.
const fetchLimit = 5 * time.Minute

// A Guest is a kernel and an initramfs, in files. Immutable; they may be used by several
// processes at a time.
type Guest struct {
	Kernel string // release, as uname -r says in it
	dir    string
}

func (g *Guest) vmlinux() string { return filepath.Join(g.dir, "vmlinux") }
func (g *Guest) base() string    { return filepath.Join(g.dir, "base.cpio") }

// cacheDir is where guests are kept.
func cacheDir() (string, error) {
	if d := os.Getenv("DAXFS_VM_CACHE"); d != "" {
		return filepath.Abs(d)
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(d, "daxfs-vm"), nil
}

// Prepare finds the guest in the cache, or makes it of packages that it downloads, which
// takes a minute; it says on w what it does. One process at a time makes one.
func Prepare(ctx context.Context, w io.Writer) (*Guest, error) {
	if err := needPrograms(); err != nil {
		return nil, err
	}
	p, err := readPins(pinsText)
	if err != nil {
		return nil, err
	}
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, err
	}
	g := &Guest{Kernel: p.kernel, dir: filepath.Join(cache, p.key())}
	if _, err := os.Stat(g.dir); err == nil {
		return g, nil
	}
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	start := time.Now()
	fmt.Fprintf(w, "making the guest: Linux %s, %d packages\n", p.kernel, len(p.packages))
	tmp, err := os.MkdirTemp(cache, "making-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	for _, d := range []string{"debs", "root", "out"} {
		if err := os.Mkdir(filepath.Join(tmp, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := p.fetch(ctx, filepath.Join(tmp, "debs")); err != nil {
		return nil, err
	}
	fmt.Fprintf(w, "fetched in %.1f s\n", time.Since(start).Seconds())
	if err := p.build(ctx, tmp); err != nil {
		return nil, err
	}
	if err := os.Rename(filepath.Join(tmp, "out"), g.dir); err != nil {
		return nil, err
	}
	fmt.Fprintf(w, "made in %.1f s, and kept in %s\n", time.Since(start).Seconds(), g.dir)
	return g, nil
}

// build makes tmp/out of tmp/debs.
func (p *pins) build(ctx context.Context, tmp string) error {
	debs, err := filepath.Glob(filepath.Join(tmp, "debs", "*.deb"))
	if err != nil || len(debs) != len(p.packages) {
		return fmt.Errorf("%d packages were downloaded, want %d (%w)", len(debs), len(p.packages), err)
	}
	root := filepath.Join(tmp, "root")
	for _, deb := range debs {
		if _, err := run(ctx, "", "dpkg-deb", "-x", deb, root); err != nil {
			return err
		}
	}
	modules := filepath.Join("lib/modules", p.kernel)
	if err := unpackKernel(ctx, filepath.Join(root, "usr", modules, "vmlinuz"), filepath.Join(tmp, "out", "vmlinux")); err != nil {
		return err
	}
	if err := p.unpackModules(ctx, filepath.Join(root, "usr", modules), filepath.Join(tmp, "mods", modules)); err != nil {
		return err
	}
	if _, err := run(ctx, "", "depmod", "-b", filepath.Join(tmp, "mods"), p.kernel); err != nil {
		return err
	}
	files := map[string]string{}
	for _, name := range p.files {
		files[name] = filepath.Join(root, name)
	}
	err = filepath.WalkDir(filepath.Join(tmp, "mods"), func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(filepath.Join(tmp, "mods"), name)
			files[rel] = name
		}
		return err
	})
	if err != nil {
		return err
	}
	initFile := filepath.Join(tmp, "init")
	script := strings.Replace(initScript, "@MODULES@", strings.Join(p.modules, " "), 1)
	if err := os.WriteFile(initFile, []byte(script), 0o755); err != nil {
		return err
	}
	files["init"] = initFile
	out, err := os.Create(filepath.Join(tmp, "out", "base.cpio"))
	if err != nil {
		return err
	}
	defer out.Close()
	return writeArchive(out, []string{"bin", "sbin", "usr/bin", "usr/sbin", "dev", "proc", "sys", "tmp", "run", "mnt", "root", "etc", "lib64", "job"}, files)
}

func unpackKernel(ctx context.Context, from, to string) error {
	image, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	p, err := payload(image)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	if err := os.WriteFile(to+".zst", p, 0o644); err != nil {
		return err
	}
	defer os.Remove(to + ".zst")
	_, err = run(ctx, "", "zstd", "-dq", to+".zst", "-o", to)
	return err
}

// unpackModules copies the pinned trees of modules, unpacked, and what depmod wants to know.
func (p *pins) unpackModules(ctx context.Context, from, to string) error {
	xz, err := find("xz")
	if err != nil {
		return err
	}
	put := func(rel string, data []byte) error {
		name := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		return os.WriteFile(name, data, 0o644)
	}
	for _, name := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = put(name, b)
		}
		if err != nil {
			return err
		}
	}
	for _, tree := range p.trees {
		err := filepath.WalkDir(filepath.Join(from, "kernel", tree), func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			rel, _ := filepath.Rel(from, name)
			cmd := exec.CommandContext(ctx, xz, "-dc", name)
			var out, bad bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &bad
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("xz -d %s: %w: %s", name, err, bad.Bytes())
			}
			return put(strings.TrimSuffix(rel, ".xz"), out.Bytes())
		})
		if err != nil {
			return err
		}
	}
	return nil
}
