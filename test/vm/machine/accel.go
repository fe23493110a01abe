package machine

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

//go:embed init
var initScript string

var (
	emulated    = []string{"-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"}
	accelerated = []string{"-accel", "kvm", "-cpu", "host"}
)

// kvmLimit bounds a boot that tries KVM. It is several times what such a boot takes if KVM works.
const kvmLimit = 15 * time.Second

// accelerator returns QEMU's arguments for KVM, if a guest has booted with KVM since the host was
// booted, else for emulation. DAXFSD_VM_ACCEL (kvm or tcg) decides without a trial.
func (g *Guest) accelerator(ctx context.Context) ([]string, error) {
	switch a := os.Getenv("DAXFSD_VM_ACCEL"); a {
	case "tcg":
		return emulated, nil
	case "kvm":
		return accelerated, nil
	case "":
	default:
		return nil, fmt.Errorf("DAXFSD_VM_ACCEL is %q: kvm or tcg was expected", a)
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return emulated, nil
	}
	f.Close()
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	known := filepath.Join(g.dir, "kvm-"+strings.TrimSpace(string(boot)))
	works, err := os.ReadFile(known)
	if err != nil {
		works = []byte("no")
		if g.kvmBoots(ctx) {
			works = []byte("yes")
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err := os.WriteFile(known, works, 0o644); err != nil {
			return nil, err
		}
	}
	if string(works) == "yes" {
		return accelerated, nil
	}
	return emulated, nil
}

// kvmBoots tries to boot with KVM. KVM may exist and still not work: nested, it may initialise and
// then fail in the guest.
func (g *Guest) kvmBoots(ctx context.Context) bool {
	dir, err := os.MkdirTemp("", "daxfsd-vm-")
	if err != nil {
		return false
	}
	defer os.RemoveAll(dir)
	var out bytes.Buffer
	b := &Boot{Guest: g, Job: "exit 42", Output: &out}
	initrd := filepath.Join(dir, "initrd")
	if err := b.pack(dir, initrd); err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, kvmLimit)
	defer cancel()
	e := b.once(ctx, initrd, accelerated)
	return e.coded && e.code == 42
}

// Accelerator returns the accelerator that guests run with: kvm or tcg.
func (g *Guest) Accelerator(ctx context.Context) (string, error) {
	a, err := g.accelerator(ctx)
	if err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(a[1], ",")
	return name, nil
}
