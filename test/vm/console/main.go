// Console runs a command in a guest with emulated persistent memory, and shows its output. Its exit
// code is the command's. test/vm/run starts it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/daxfsd/daxfsd/test/vm/machine"
)

func main() {
	code := 0
	if err := command(&code).Execute(); err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		code = 125 // the exit code of env(1) and chroot(8) if the command did not run
	}
	os.Exit(code)
}

type flags struct {
	nvdimm, virtio []string
	files, parts   []string
	append         string
	limit          time.Duration
}

func command(code *int) *cobra.Command {
	var f flags
	c := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARGUMENT...]",
		Short: "Run a command in a guest with emulated persistent memory",
		Long: `Run a command in a guest with emulated persistent memory. One argument is a script
for sh; several are a program and its arguments. The guest is Linux with busybox,
ndctl, daxctl, mkfs.ext4, mkfs.xfs and daxfsd, and one NVDIMM of 1 GiB unless
flags say otherwise; --part nfs adds an NFS server. A device whose file is named
is kept; the others are deleted after the run. The exit code is the command's; 125:
no guest could be booted.`,
		Example: `  test/vm/run -- ndctl list -RN
  test/vm/run -- 'ndctl create-namespace -f -e namespace0.0 -m devdax --align 2M &&
	daxfsd mkfs /dev/dax0.0 && daxfsd mount /dev/dax0.0 /mnt && daxfsd info /mnt'
  test/vm/run --nvdimm 3GiB:/var/tmp/nv0 --append memmap=1G!4G -- ndctl list -N`,
		Args:          cobra.MinimumNArgs(1),
		SilenceErrors: true, SilenceUsage: true,
		RunE: func(_ *cobra.Command, args []string) (err error) {
			*code, err = f.run(args)
			return err
		},
	}
	c.Flags().StringArrayVar(&f.nvdimm, "nvdimm", nil, "an NVDIMM: SIZE or SIZE:FILE; SIZE is in GiB, as 3GiB")
	c.Flags().StringArrayVar(&f.virtio, "virtio", nil, "a virtio-pmem device: SIZE or SIZE:FILE, as for --nvdimm")
	c.Flags().StringArrayVar(&f.files, "file", nil, "put this file into the guest's working directory")
	c.Flags().StringArrayVar(&f.parts, "part", nil, "add this part of test/vm/machine/pins: nfs")
	c.Flags().StringVar(&f.append, "append", "", "add this to the kernel's command line")
	c.Flags().DurationVar(&f.limit, "limit", 10*time.Minute, "kill the guest after this")
	return c
}

func (f *flags) run(args []string) (int, error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	guest, err := machine.Prepare(ctx, os.Stderr)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "daxfsd-vm-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	b := &machine.Boot{Guest: guest, Parts: f.parts, Limit: f.limit, Append: f.append, Output: os.Stdout, Job: args[0], Files: map[string]string{}}
	if len(args) > 1 {
		b.Job = quote(args)
	}
	if len(f.nvdimm)+len(f.virtio) == 0 {
		f.nvdimm = []string{"1GiB"}
	}
	for i, s := range append(append([]string{}, f.nvdimm...), f.virtio...) {
		d, err := device(s, filepath.Join(dir, fmt.Sprintf("mem%d", i)))
		if err != nil {
			return 0, err
		}
		d.Virtio = i >= len(f.nvdimm)
		b.Devices = append(b.Devices, d)
	}
	for _, name := range f.files {
		b.Files[filepath.Base(name)] = name
	}
	accel, err := guest.Accelerator(ctx)
	if err != nil {
		return 0, err
	}
	fmt.Fprintf(os.Stderr, "booting Linux %s under QEMU (%s)\n", guest.Kernel, accel)
	return b.Run(ctx)
}

// device parses SIZE or SIZE:FILE.
func device(s, file string) (machine.Device, error) {
	size, name, named := strings.Cut(s, ":")
	if named {
		file = name
	}
	var gib int64
	if n, err := fmt.Sscanf(size, "%dGiB", &gib); n != 1 || err != nil || gib < 1 {
		return machine.Device{}, errors.New(s + ": expected SIZE or SIZE:FILE, with a size like 1GiB")
	}
	return machine.Device{File: file, Size: gib << 30}, nil
}

// quote returns a command as one line for sh.
func quote(args []string) string {
	q := make([]string, len(args))
	for i, a := range args {
		q[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(q, " ")
}
