package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/layout"
	"github.com/daxfsd/daxfsd/fs/owner"
	"github.com/daxfsd/daxfsd/pmem"
)

type mkfsFlags struct {
	size     sizeFlag
	sparse   bool
	label    string
	uuid     string
	force    bool
	takeover bool
	reserve  float64 // per cent of the space that only root may fill with data
	json     bool
	cancel   <-chan struct{} // closed by a signal; nil: cannot be cancelled
}

func mkfsCommand() *cobra.Command {
	var f mkfsFlags
	c := &cobra.Command{
		Use:   "mkfs [flags] REGION",
		Short: "Make a daxfsd filesystem on a region",
		Long: `Make an empty daxfsd filesystem on a region.

REGION is a device (/dev/dax0.0) or a file. A file that does not exist is created:
1 GiB unless --size says otherwise, preallocated unless --sparse is given. An
existing file keeps its size unless --size says otherwise. The size of a filesystem
is between 16 MiB and 32 TiB.

mkfs first checks that there is room for the whole file: in the filesystem that it
is on and, where that is memory (tmpfs), in the memory of the machine and of the
control groups of this process, of which 3 % must stay free. If there is not enough
room, nothing is allocated. A new file gets its name last, so that a mkfs that fails
or is killed leaves nothing behind (without O_TMPFILE, for example on NFS, kill -9
leaves the file). An existing file that was to grow gets its old size back after a
failure, but not after kill -9.

mkfs refuses a region that holds anything but zeros, unless --force is given. It
reads the whole region, except holes, to find out: on a large device this takes a
while. It always refuses a mounted region, and one whose files' memory programs
still map (` + "`daxfsd leases`" + ` lists them). If another host may have the region
mounted, or the record of its user cannot be read, --takeover is needed as well.
The root directory will belong to the user who runs mkfs.`,
		Example: `  daxfsd mkfs --size 4GiB --label scratch /var/lib/pool.dax
  daxfsd mkfs /dev/dax0.0
  daxfsd mkfs --json --uuid 6a1f4c3e-9b1d-4c8e-8f62-0d9be2c5a713 pool.dax`,
		Args: args("REGION"),
		RunE: func(c *cobra.Command, a []string) error { return mkfs(c, &f, a[0]) },
	}
	c.Flags().Var(&f.size, "size", "size of the filesystem, and of the file it is in, such as 512MiB or 4GiB")
	c.Flags().BoolVar(&f.sparse, "sparse", false, "do not preallocate the file; writes may then fail because the disk is full")
	c.Flags().StringVar(&f.label, "label", "", "a name for the filesystem, up to 64 bytes")
	c.Flags().StringVar(&f.uuid, "uuid", "", "the UUID; default: random")
	c.Flags().Float64Var(&f.reserve, "reserve", 1, "percent of the space reserved for root's data, 0 to 50")
	c.Flags().BoolVar(&f.force, "force", false, "overwrite whatever the region holds")
	c.Flags().BoolVar(&f.takeover, "takeover", false, "with --force: overwrite even if another host may be using the region")
	c.Flags().BoolVar(&f.json, "json", false, "print the result as JSON")
	return c
}

// mkfsResult is the output of mkfs; scripts rely on its fields. Sizes are in bytes.
type mkfsResult struct {
	Region     string `json:"region"`
	Kind       string `json:"kind"`
	Durability string `json:"durability"`
	Size       int64  `json:"size"`
	Align      int64  `json:"align"`
	Label      string `json:"label"`
	UUID       string `json:"uuid"`
}

func mkfs(c *cobra.Command, f *mkfsFlags, arg string) error {
	path, err := regionPath(arg)
	if err != nil {
		return err
	}
	o := fs.MkfsOptions{Label: f.label, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Reserve: f.reserve}
	if f.uuid != "" {
		if o.UUID, err = parseUUID(f.uuid); err != nil {
			return err
		}
	}
	p := newProgress(os.Stderr)
	defer p.end()
	cancel, stop := cancelOnSignal()
	defer stop()
	f.cancel = cancel
	h, r, err := regionForMkfs(path, f, p.update)
	if err != nil {
		return err
	}
	defer h.Close()
	defer r.Close()
	sb, err := f.format(path, h, r, o, p.update)
	if err != nil {
		return err
	}
	p.end()
	return printMkfs(c, f.json, path, r, sb)
}

// cancelOnSignal returns a channel that is closed by the first signal that would end the process. A
// second signal ends the process.
func cancelOnSignal() (cancel <-chan struct{}, stop func()) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	return ctx.Done(), stop
}

// formatting is what mkfs does to a region, for a mappedError.
const formatting = "formatting it"

// format makes the filesystem on a prepared region, writes it back, and then gives the file its
// name.
func (f *mkfsFlags) format(path string, h *pmem.Handle, r *pmem.Region, o fs.MkfsOptions, p progressFunc) (*layout.Superblock, error) {
	o.Size = int64(f.size)
	if err := f.unused(path, r, p); err != nil { // reading and allocating took a while
		return nil, err
	}
	if err := unmapped(path, r, formatting, ""); err != nil {
		return nil, err
	}
	sb, err := fs.Mkfs(r, o)
	if err != nil {
		return nil, regionError(path, err)
	}
	if err := r.Sync(0, sb.Size); err != nil {
		return nil, fmt.Errorf("region %s: writing back: %w", path, err)
	}
	if err := h.Keep(); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("region %s was created by another process meanwhile; it was not changed", path)
		}
		return nil, regionError(path, err)
	}
	return sb, nil
}

func printMkfs(c *cobra.Command, asJSON bool, path string, r *pmem.Region, sb *layout.Superblock) error {
	res := mkfsResult{Region: path, Kind: r.Kind().String(), Durability: r.Durability().String(),
		Size: sb.Size, Align: r.Align(), Label: sb.Label, UUID: uuidString(sb.UUID)}
	if asJSON {
		return json.NewEncoder(c.OutOrStdout()).Encode(res)
	}
	table(c.OutOrStdout(), [][2]string{
		{"region", res.Region}, {"kind", res.Kind}, {"size", formatSize(res.Size)},
		{"label", res.Label}, {"uuid", res.UUID}, {"durability", durabilityText(r.Durability())},
	})
	return nil
}

// regionForMkfs opens the region that mkfs is about to format: it creates a missing file, resizes
// an existing one to --size, and refuses a region that holds something. After an error nothing has
// changed. It works only on the one descriptor that is opened and locked first, because the name
// may lead elsewhere meanwhile.
func regionForMkfs(path string, f *mkfsFlags, p progressFunc) (*pmem.Handle, *pmem.Region, error) {
	if err := f.check(); err != nil {
		return nil, nil, err
	}
	h, err := acquireRegion(path)
	if err != nil {
		return nil, nil, err
	}
	r, err := f.prepare(path, h, p)
	if err != nil {
		h.Close()
		return nil, nil, err
	}
	return h, r, nil
}

// check refuses flags that are out of range for any region.
func (f *mkfsFlags) check() error {
	if len(f.label) > layout.LabelSize || strings.ContainsRune(f.label, 0) {
		return usagef("--label: %d bytes is too long or contains a NUL; the limit is %d bytes", len(f.label), layout.LabelSize)
	}
	if !(f.reserve >= 0 && f.reserve <= 50) {
		return usagef("--reserve: %v %% is out of range; expected 0 to 50", f.reserve)
	}
	if f.size != 0 && f.size < fs.MinSize {
		return fmt.Errorf("%s is too small for a daxfsd: it needs at least %s", formatSize(int64(f.size)), formatSize(fs.MinSize))
	}
	if f.size > fs.MaxSize {
		return fmt.Errorf("%s is too large for a daxfsd: the limit is %s", formatSize(int64(f.size)), formatSize(fs.MaxSize))
	}
	return nil
}

// acquireRegion opens and locks the region to be formatted. It creates a missing file, unless the
// path is that of a device.
func acquireRegion(path string) (*pmem.Handle, error) {
	device := onDevFilesystem(path)
	h, err := retryBusy(path, func() (*pmem.Handle, error) { return pmem.Acquire(path, !device) })
	var st unix.Stat_t
	switch {
	case err == nil:
		return h, nil
	case !device && errors.Is(err, os.ErrNotExist) && linkTarget(path) == "":
		return nil, fmt.Errorf("region %s cannot be created: there is no directory %s", path, filepath.Dir(path))
	case errors.Is(err, pmem.ErrNotRegion) && unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR: // for the message only
		return nil, fmt.Errorf("region %s is a directory; name a file in it", path)
	}
	return nil, regionError(path, err)
}

// onDevFilesystem reports whether a path is on the filesystem of the device nodes. Filesystems
// mounted below /dev, such as /dev/shm and /dev/hugepages, do not count.
func onDevFilesystem(path string) bool {
	var dev, dir unix.Stat_t
	return strings.HasPrefix(path, "/dev/") && unix.Stat("/dev", &dev) == nil && unix.Stat(filepath.Dir(path), &dir) == nil && dev.Dev == dir.Dev
}

// prepare checks that the acquired region may be formatted, and gives it its size.
func (f *mkfsFlags) prepare(path string, h *pmem.Handle, p progressFunc) (*pmem.Region, error) {
	if !h.Regular() {
		return f.prepareDevice(path, h, p)
	}
	size, old := int64(f.size)&^(layout.BlockSize-1), h.Size()
	switch {
	case size == 0 && old == 0:
		size = defaultSize
	case size == 0 && old < fs.MinSize:
		return nil, fmt.Errorf("region %s has %s, which is too small for a daxfsd: it needs at least %s; give it a --size", path, formatSize(old), formatSize(fs.MinSize))
	case size == 0:
		size = old // even if not a multiple of the block size
	}
	if err := f.mayFormat(path, h, h.FileLocks(), p); err != nil {
		return nil, err
	}
	if f.force { // otherwise mayOverwrite has found only zeros
		if r, err := h.Region(); err == nil { // otherwise it is too small for a daxfsd
			err = f.unused(path, r, p)
			r.Close()
			if err != nil {
				return nil, err
			}
		}
	}
	if size < old && !f.force {
		return nil, fmt.Errorf("region %s has %s, and a --size of %s would cut it; --force does that", path, formatSize(old), formatSize(size))
	}
	err := h.Resize(pmem.ResizeOptions{Size: size, Sparse: f.sparse, Cancel: f.cancel, Progress: func(done, total int64) { p("allocating", done, total) }})
	if err != nil {
		return nil, regionError(path, err)
	}
	return mapRegion(path, h)
}

// unused fails if another process uses the filesystem that is to be overwritten, under whatever
// name. A region that cannot be judged may be in use: by a newer daxfsd, or by one that read it
// before its memory failed or its file was cut.
func (f *mkfsFlags) unused(path string, r *pmem.Region, p progressFunc) error {
	sb, _, err := fs.ReadSuper(r)
	if errors.Is(err, layout.ErrMagic) || errors.Is(err, layout.ErrChecksum) {
		return nil // not a daxfsd, or one that cannot be mounted
	}
	var v *owner.Verdict
	if sb != nil { // even if the file was cut
		v, err = owner.Judge(r, sb, owner.Options{Progress: p})
	}
	switch {
	case err != nil && f.takeover:
		return nil
	case err != nil:
		return &reworded{fmt.Sprintf("region %s: whether the daxfsd on it is in use cannot be determined (%v); if it is not, use --takeover", path, err), err}
	}
	if err := v.Refusal(f.takeover, "--takeover"); err != nil {
		return superError(path, r, err)
	}
	return nil
}

func (f *mkfsFlags) prepareDevice(path string, h *pmem.Handle, p progressFunc) (*pmem.Region, error) {
	r, err := mapRegion(path, h)
	if err != nil {
		return nil, err
	}
	if int64(f.size) > r.Size() {
		err = fmt.Errorf("region %s has %s, which is less than the %s asked for", path, formatSize(r.Size()), formatSize(int64(f.size)))
	} else {
		err = f.mayFormat(path, r, h.FileLocks(), p)
	}
	if err == nil && f.force {
		err = f.unused(path, r, p)
	}
	if err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// mayFormat refuses a region that holds something, see mayOverwrite, and one that programs map even
// with --force. Both may be so: the error is errHolds then, but tells of the programs.
func (f *mkfsFlags) mayFormat(path string, c pmem.Content, locks locksOn, p progressFunc) error {
	holds := f.mayOverwrite(path, c, p)
	if holds != nil && !errors.Is(holds, errHolds) {
		return holds
	}
	err := unmapped(path, locks, formatting, "")
	switch {
	case err == nil:
		return holds
	case holds == nil:
		return err
	}
	return &reworded{err.Error(), holds}
}

// mayOverwrite refuses a region that holds anything but zeros, unless --force is given.
func (f *mkfsFlags) mayOverwrite(path string, c pmem.Content, p progressFunc) error {
	if f.force {
		return nil
	}
	what, err := contentOf(c, p, f.cancel)
	if err != nil {
		return regionError(path, err)
	}
	if what != "" {
		return &reworded{fmt.Sprintf("region %s holds %s; --force overwrites it", path, what), errHolds}
	}
	return nil
}

// errHolds is returned for a region that holds something.
var errHolds = errors.New("the region is not empty")

// mapRegion maps an acquired region; its error explains in one sentence why the region cannot be
// mapped.
func mapRegion(path string, h *pmem.Handle) (*pmem.Region, error) {
	r, err := h.Region()
	if err != nil {
		return nil, regionError(path, err)
	}
	return r, nil
}
