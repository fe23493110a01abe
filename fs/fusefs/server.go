package fusefs

import (
	"fmt"
	"io"
	"log"
	"runtime"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs"
	"github.com/daxfsd/daxfsd/fs/transport"
)

// Type is the filesystem type: the kernel shows it as "fuse.daxfsd".
const Type = "daxfsd"

// ProtocolMajor and ProtocolMinor are the highest FUSE protocol version in the answer to INIT. It
// is go-fuse's version, which go-fuse does not export. An older kernel gets its own minor version.
const (
	ProtocolMajor = 7
	ProtocolMinor = 28
)

// Transport is how requests come from the kernel.
type Transport int

const (
	// TransportAuto is TransportUring if it is available, else TransportDev.
	TransportAuto Transport = iota
	// TransportUring is io_uring: Linux 6.14, with the fuse module's parameter enable_uring.
	TransportUring
	// TransportDev is /dev/fuse.
	TransportDev
)

// String returns the value of the mount option.
func (t Transport) String() string { return [...]string{"auto", "uring", "dev"}[t] }

// Options are the options of Attach.
type Options struct {
	Mountpoint string // absolute path of an existing directory, without symbolic links
	// Dir is Mountpoint, opened with O_PATH when it was checked; Attach closes it. If 0, Attach
	// opens Mountpoint.
	Dir       int
	Source    string // device name in the mount table: the region
	DAX       DAX
	Transport Transport
	// Kernel are the options for mount(2): those of flagOptions, default_permissions and
	// allow_other.
	Kernel []string
	// Info and Activity return the values of InfoXattr and ActivityXattr.
	Info, Activity func() []byte
	// Grants returns what the values of GrantsFrom list: at most most grants, ordered by their
	// keys, from a key on.
	Grants func(from uint64, most int) []Grant
	// Trace, if not nil, is called with every request after it has been answered. It must be safe
	// for concurrent use. A slow Trace delays the next request.
	Trace func(*transport.Request)
	// NoPoll is transport.Options.NoPoll. It is implied where the process's CPU time is limited
	// (cgroups).
	NoPoll bool
	// Log receives go-fuse's messages; nil: they are discarded.
	Log *log.Logger
	// Panicked is called with the value of a panic in the filesystem. Locks may then be held
	// forever, so the process should end. If Panicked returns, the request gets EIO.
	Panicked func(any)
}

// Conn is a mount that exists in the kernel, but whose requests are not answered yet. States:
// attached -> started (Start: the Server owns it), or attached -> closed (Close: unmounted again).
type Conn struct {
	opt Options
	fd  int
	at  place
}

// Attach mounts on o.Mountpoint. It checks everything that can be refused before the core changes
// anything on the region. Programs that access the mount wait until Serve.
func Attach(o Options) (*Conn, error) {
	if o.Log == nil {
		o.Log = log.New(io.Discard, "", 0)
	}
	if o.Dir == 0 {
		var err error
		if o.Dir, err = unix.Open(o.Mountpoint, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("mount point %s: %w", o.Mountpoint, err)
		}
	}
	defer unix.Close(o.Dir)
	if err := o.unmoved(); err != nil {
		return nil, err
	}
	fd, err := o.open()
	if err != nil {
		return nil, err
	}
	at, err := o.place()
	if err != nil {
		o.takeBack()
		_ = unix.Close(fd)
		return nil, err
	}
	return &Conn{opt: o, fd: fd, at: at}, nil
}

// Close unmounts. It must not be called after Start.
func (c *Conn) Close() {
	_ = c.at.unmount(Lazy)
	_ = unix.Close(c.fd)
}

// Server is a mounted filesystem. States: mounted -> serving (Serve) -> unmounted (Serve has
// returned), through Unmount, umount(8), or an abort of the connection.
type Server struct {
	opt    Options
	uring  *transport.Uring // nil: /dev/fuse
	whyNot error            // with TransportAuto: why uring is nil
	fuse   *fuse.Server     // for notifications; it never serves
	serves transport.Filesystem
	late   *sync.WaitGroup // Adapter.late
	fd     int
	at     place
	began  chan struct{}     // closed by Serve when conn is set
	conn   *transport.Server // immutable once began is closed
}

// Capabilities are the FUSE capabilities beyond go-fuse's defaults. DONT_MASK is honoured in Mknod,
// Mkdir and Create, EXPORT_SUPPORT in Lookup, HANDLE_KILLPRIV_V2 in SetAttr and Write, SETXATTR_EXT
// in SetXAttr, and IOCTL_DIR in Ioctl.
//
// ASYNC_DIO is requested with DAXAlways only. The kernel drops pages before it sends an
// asynchronous direct write, but not after it, so a page that is read in between would stay stale.
// With DAXAlways endBypass drops such pages; with a page cache in use every file has them.
const Capabilities = fuse.CAP_DONT_MASK | fuse.CAP_EXPORT_SUPPORT |
	fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_DIRECT_IO_ALLOW_MMAP | fuse.CAP_PARALLEL_DIROPS |
	fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_SETXATTR_EXT | fuse.CAP_IOCTL_DIR

// Start answers the kernel's INIT for core. It owns the connection, even if it fails. The mount
// works once Serve runs.
func (c *Conn) Start(core *fs.FS) (*Server, error) {
	o := &c.opt
	a := New(core, o.DAX, o.Info)
	a.panicked, a.activity, a.grants = o.Panicked, o.Activity, o.Grants
	a.conn = c.fd
	s := &Server{opt: *o, serves: a, late: &a.late, fd: c.fd, at: c.at, began: make(chan struct{})}
	var err error
	if o.Transport != TransportDev {
		s.uring, err = transport.NewUring()
	}
	if o.Transport == TransportAuto {
		s.whyNot, err = err, nil
	}
	if err == nil {
		if err = s.init(a); err != nil {
			err = fmt.Errorf("the kernel's FUSE does not accept this program: %w", err)
		} else if s.uring != nil && s.fuse.KernelSettings().Flags64()&transport.CapUring == 0 {
			err = fmt.Errorf("%w: the kernel does not offer it", transport.ErrUring)
			if o.Transport == TransportAuto {
				s.uring.Close()
				s.uring, s.whyNot, err = nil, err, nil
			}
		}
	}
	if err != nil {
		if s.uring != nil {
			s.uring.Close()
		}
		c.Close()
		return nil, err
	}
	return s, nil
}

// Transport returns the transport in use, and the reason if that is /dev/fuse without an option
// asking for it.
func (s *Server) Transport() (t Transport, whyNot error) {
	if s.uring != nil {
		return TransportUring, nil
	}
	return TransportDev, s.whyNot
}

// init answers INIT with s.fuse, which sends notifications from then on. It replays the same INIT
// to a.protocol, which parses slow requests, so that both know what was negotiated.
func (s *Server) init(a *Adapter) (err error) {
	o := &s.opt
	caps := uint64(Capabilities)
	if o.DAX == DAXAlways {
		caps |= fuse.CAP_ASYNC_DIO
	}
	if s.uring != nil {
		caps |= transport.CapUring
		a.writeback.Total = min(a.writeback.Total, s.uring.Depth()/2)
		a.writeback.Each = max(1, a.writeback.Total/2)
		a.dropping.Total = min(droppingMax, max(1, s.uring.Depth()*3/8)) // leave entries for the kernel's write-back
		a.dropping.Each = a.dropping.Total
	}
	mountOpts := &fuse.MountOptions{
		Name: Type, FsName: o.Source, Logger: o.Log,
		MaxWrite: transport.MaxIO, MaxBackground: 256,
		DisableSplice:        true,
		EnableSymlinkCaching: true, // a link's target never changes
		EnableAcl:            true, // the kernel checks access; the core keeps mode and ACL consistent
		// With the kernel's page cache in use, a change of mtime by the daemon's own write must not
		// drop the cached pages.
		ExplicitDataCacheControl: o.DAX != DAXAlways,
		ExtraCapabilities:        caps,
		PanicHandler: func(v any) fuse.Status {
			a.Panicked(v)
			return fuse.EIO
		},
	}
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0) // go-fuse closes its descriptor at a time of its own
	if err != nil {
		return err
	}
	if s.fuse, err = fuse.NewServer(a, fmt.Sprintf("/dev/fd/%d", fd), mountOpts); err != nil {
		return err
	}
	a.protocol = fuse.NewProtocolServer(a, mountOpts)
	var out [256]byte
	if n, code := a.protocol.HandleRequest([][]byte{bytesOf(s.fuse.KernelSettings())}, [][]byte{out[:]}); n == 0 || !code.Ok() {
		return fmt.Errorf("replaying INIT for slow requests: %v", code)
	}
	return nil
}

// Serve answers the kernel until the filesystem is unmounted. When it returns, no request is in
// flight.
func (s *Server) Serve() {
	n := runtime.NumCPU()
	procs := runtime.GOMAXPROCS(0)
	// A queue that has read a request must go on at once, even while goroutines keep all processors
	// of the Go runtime busy.
	runtime.GOMAXPROCS(procs + n)
	defer runtime.GOMAXPROCS(procs)
	o := transport.Options{
		Warn:   s.opt.Log.Printf,
		Abort:  s.abort,
		Trace:  s.opt.Trace,
		NoPoll: s.opt.NoPoll || procs < n, // the Go runtime has found a CPU limit
	}
	if s.uring != nil {
		s.conn = s.uring.Serve(s.fd, s.serves, o)
	} else {
		s.conn = transport.Dev(s.fd, s.serves, n, o)
	}
	close(s.began)
	s.conn.Wait()
	s.late.Wait()
	_ = unix.Close(s.fd)
}

// abort ends the connection through its file in fusectl, which the mount's owner may write. If that
// fails, it unmounts, which aborts for root only.
func (s *Server) abort() {
	if Abort(s.at.minor) != nil {
		_ = s.at.unmount(Force)
	}
}

// Stats returns what was served since Serve began; it waits for that. It is safe for concurrent
// use.
func (s *Server) Stats() transport.Stats {
	<-s.began
	return s.conn.Stats()
}

// SharedMmap reports whether files can be mapped shared: always with dax=never, otherwise from
// Linux 6.6 on.
func (s *Server) SharedMmap() bool {
	return s.opt.DAX == DAXNever || s.fuse.KernelSettings().Flags64()&fuse.CAP_DIRECT_IO_ALLOW_MMAP != 0
}

// Unmount ends Serve: it unmounts what Attach mounted, even if that was moved. It fails with
// ErrCovered while something else is mounted on the mount.
func (s *Server) Unmount(mode UnmountMode) error { return s.at.unmount(mode) }
