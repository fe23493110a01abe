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

// fetchLimit bounds the time to make a guest.
const fetchLimit = 5 * time.Minute

// A Guest is a kernel and an initramfs, in files. It is immutable; several processes may use the
// files at a time.
type Guest struct {
	Kernel string // release, as printed by uname -r in the guest
	dir    string
}

func (g *Guest) vmlinux() string { return filepath.Join(g.dir, "vmlinux") }

// archive returns the path of the initramfs ("") or of a part that only some boots get.
func (g *Guest) archive(part string) string {
	if part == "" {
		part = "base"
	}
	return filepath.Join(g.dir, part+".cpio")
}

// cacheDir returns the directory where guests are kept.
func cacheDir() (string, error) {
	if d := os.Getenv("DAXFSD_VM_CACHE"); d != "" {
		return filepath.Abs(d)
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(d, "daxfsd-vm"), nil
}

// Prepare returns the guest from the cache, or makes it from packages that it downloads, which
// takes a minute. It reports its progress to w. Only one process at a time makes a guest.
func Prepare(ctx context.Context, progress io.Writer) (*Guest, error) {
	if err := needPrograms(); err != nil {
		return nil, err
	}
	wanted, err := readPins(pinsText)
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
	guest := &Guest{Kernel: wanted.kernel, dir: filepath.Join(cache, wanted.key())}
	if _, err := os.Stat(guest.dir); err == nil {
		return guest, nil
	}
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	start := time.Now()
	fmt.Fprintf(progress, "making the guest: Linux %s, %d packages\n", wanted.kernel, len(wanted.packages))
	tmp, err := os.MkdirTemp(cache, "making-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	for _, sub := range []string{"debs", "root", "out"} {
		if err := os.Mkdir(filepath.Join(tmp, sub), 0o755); err != nil {
			return nil, err
		}
	}
	if err := wanted.fetch(ctx, filepath.Join(tmp, "debs")); err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "fetched in %.1f s\n", time.Since(start).Seconds())
	if err := wanted.build(ctx, tmp, &Guest{dir: filepath.Join(tmp, "out")}); err != nil {
		return nil, err
	}
	if err := os.Rename(filepath.Join(tmp, "out"), guest.dir); err != nil {
		return nil, err
	}
	fmt.Fprintf(progress, "made in %.1f s, and kept in %s\n", time.Since(start).Seconds(), guest.dir)
	return guest, nil
}

// build makes the guest's files from the packages in tmp/debs.
func (p *pins) build(ctx context.Context, tmp string, guest *Guest) error {
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
	if err := unpackKernel(ctx, filepath.Join(root, "usr", modules, "vmlinuz"), guest.vmlinux()); err != nil {
		return err
	}
	from, mods := filepath.Join(root, "usr", modules), filepath.Join(tmp, "mods")
	if err := copyIndexes(from, filepath.Join(mods, modules)); err != nil {
		return err
	}
	content := make([]map[string]string, len(p.parts)) // one map for each archive
	for i, part := range p.parts {
		content[i] = map[string]string{}
		for _, name := range part.files {
			content[i][name] = filepath.Join(root, name)
		}
		unpacked, err := unpackModules(ctx, from, filepath.Join(mods, modules), part.trees)
		if err != nil {
			return err
		}
		for _, rel := range unpacked {
			content[i][filepath.Join(modules, rel)] = filepath.Join(mods, modules, rel)
		}
	}
	if _, err := run(ctx, "", "depmod", "-b", mods, p.kernel); err != nil {
		return err
	}
	made, err := filepath.Glob(filepath.Join(mods, modules, "modules.*"))
	if err != nil {
		return err
	}
	for _, name := range made { // depmod's indexes cover the modules of all parts
		content[0][filepath.Join(modules, filepath.Base(name))] = name
	}
	initFile := filepath.Join(tmp, "init")
	script := strings.Replace(initScript, "@MODULES@", strings.Join(p.modules, " "), 1)
	if err := os.WriteFile(initFile, []byte(script), 0o755); err != nil {
		return err
	}
	content[0]["init"] = initFile
	dirs := []string{"bin", "sbin", "usr/bin", "usr/sbin", "dev", "proc", "sys", "tmp", "run", "mnt", "root", "etc", "lib64", "job"}
	for i, part := range p.parts {
		if err := writeArchiveFile(guest.archive(part.name), dirs, content[i]); err != nil {
			return err
		}
	}
	return nil
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

// copyIndexes copies the files about the kernel that depmod reads.
func copyIndexes(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unpackModules unpacks trees of modules from from to to, and returns their names below to.
func unpackModules(ctx context.Context, from, to string, trees []string) (names []string, err error) {
	xz, err := find("xz")
	if err != nil {
		return nil, err
	}
	for _, tree := range trees {
		err := filepath.WalkDir(filepath.Join(from, "kernel", tree), func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			cmd := exec.CommandContext(ctx, xz, "-dc", name)
			var out, bad bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &bad
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("xz -d %s: %w: %s", name, err, bad.Bytes())
			}
			rel, _ := filepath.Rel(from, name)
			rel = strings.TrimSuffix(rel, ".xz")
			if err := os.MkdirAll(filepath.Dir(filepath.Join(to, rel)), 0o755); err != nil {
				return err
			}
			names = append(names, rel)
			return os.WriteFile(filepath.Join(to, rel), out.Bytes(), 0o644)
		})
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}
