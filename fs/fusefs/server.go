package fusefs

import (
	"fmt"
	"io"
	"log"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/daxfs/daxfs/fs"
)

// Type is the filesystem type: the kernel shows it as "fuse.daxfs".
const Type = "daxfs"

// maxIO is the largest READ and WRITE in bytes.
const maxIO = 1 << 20

// Options of Attach.
type Options struct {
	Mountpoint string // absolute path of an existing directory
	Source     string // what the mount table names as the device: the region
	DAX        DAX
	// Kernel are options for mount(2): those of flagOptions, and
	// default_permissions and allow_other.
	Kernel []string
	// Info yields the value of InfoXattr.
	Info func() []byte
	// Log is told what go-fuse has to say; nil: nobody.
	Log *log.Logger
	// Panicked is told of a panic in the filesystem, after which locks may be
	// held forever: the process should end. If it returns, the request gets EIO.
	Panicked func(any)
}

// Conn is a mount whose kernel side exists and whose requests nobody answers yet.
// Attached -> Start (it belongs to the Server) or Close (it never was).
type Conn struct {
	opt Options
	fd  int
}

// Attach mounts on o.Mountpoint: everything that can be refused is refused here,
// before the core has changed anything on the region. Who touches the mount point
// waits until Serve.
func Attach(o Options) (*Conn, error) {
	if o.Log == nil {
		o.Log = log.New(io.Discard, "", 0)
	}
	fd, err := o.open()
	if err != nil {
		return nil, err
	}
	return &Conn{opt: o, fd: fd}, nil
}

// Close takes the mount back. Not after Start.
func (c *Conn) Close() {
	_ = Unmount(c.opt.Mountpoint, Lazy)
	_ = unix.Close(c.fd)
}

// Server is a mounted filesystem. Mounted -> serving (Serve) -> unmounted (Serve
// has returned): by Unmount, by umount(8), or by an abort of the connection.
type Server struct {
	opt  Options
	fuse *fuse.Server
}

// capabilities are what we ask the kernel for beyond go-fuse's defaults. Each is
// honoured: DONT_MASK in Mknod, Mkdir and Create, EXPORT_SUPPORT in Lookup,
// HANDLE_KILLPRIV_V2 in SetAttr and Write, SETXATTR_EXT in SetXAttr, IOCTL_DIR in Ioctl.
const capabilities = fuse.CAP_ASYNC_DIO | fuse.CAP_DONT_MASK | fuse.CAP_EXPORT_SUPPORT |
	fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_DIRECT_IO_ALLOW_MMAP | fuse.CAP_PARALLEL_DIROPS |
	fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_SETXATTR_EXT | fuse.CAP_IOCTL_DIR

// Start answers the kernel's INIT for core. It owns the connection, also when it
// fails. The mount works from Serve on.
func (c *Conn) Start(core *fs.FS) (*Server, error) {
	return c.start(New(core, c.opt.DAX, c.opt.Info))
}

func (c *Conn) start(a fuse.RawFileSystem) (*Server, error) {
	o := &c.opt
	s, err := fuse.NewServer(a, fmt.Sprintf("/dev/fd/%d", c.fd), &fuse.MountOptions{
		Name: Type, FsName: o.Source, Logger: o.Log,
		MaxWrite: maxIO, MaxBackground: 256,
		DisableSplice:        true,
		EnableSymlinkCaching: true, // a link's target never changes
		EnableAcl:            true, // the kernel judges; the core keeps mode and lists one
		// With the kernel's cache in charge, a change of mtime by our own write
		// must not throw its pages away.
		ExplicitDataCacheControl: o.DAX != DAXAlways,
		ExtraCapabilities:        capabilities,
		PanicHandler: func(v any) fuse.Status {
			if o.Panicked != nil {
				o.Panicked(v)
			}
			return fuse.EIO
		},
	})
	if err != nil {
		_ = Unmount(o.Mountpoint, Lazy)
		return nil, fmt.Errorf("the kernel's FUSE does not accept this program: %w", err)
	}
	return &Server{opt: *o, fuse: s}, nil
}

// Serve answers the kernel until the filesystem is unmounted. No request is in
// flight when it returns.
func (s *Server) Serve() { s.fuse.Serve() }

// SharedMmap reports whether files can be mapped shared: always with dax=never,
// otherwise from Linux 6.6 on.
func (s *Server) SharedMmap() bool {
	return s.opt.DAX == DAXNever || s.fuse.KernelSettings().Flags64()&fuse.CAP_DIRECT_IO_ALLOW_MMAP != 0
}

// Unmount asks for the end of Serve.
func (s *Server) Unmount(mode UnmountMode) error { return Unmount(s.opt.Mountpoint, mode) }
