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

// ProtocolMajor and ProtocolMinor are the version of the FUSE protocol that INIT is answered with
// at most: go-fuse's, which does not export them. A kernel that knows less gets its own minor
// version.
const (
	ProtocolMajor = 7
	ProtocolMinor = 28
)

// Transport is how requests come from the kernel.
type Transport int

const (
	// TransportAuto is TransportUring where the machine has it, else TransportDev.
	TransportAuto Transport = iota
	// TransportUring is io_uring: Linux 6.14 with the fuse module's enable_uring.
	TransportUring
	// TransportDev is /dev/fuse.
	TransportDev
)

// String is the value of the mount option.
func (t Transport) String() string { return [...]string{"auto", "uring", "dev"}[t] }

// Options of Attach.
type Options struct {
	Mountpoint string // absolute path of an existing directory, without symbolic links
	Dir        int    // open on Mountpoint by O_PATH since it was checked; Attach closes it. 0: it opens Mountpoint
	Source     string // what the mount table names as the device: the region
	DAX        DAX
	Transport  Transport
	// Kernel are options for mount(2): those of flagOptions, and
	// default_permissions and allow_other.
	Kernel []string
	// Info and Activity yield the values of InfoXattr and ActivityXattr.
	Info, Activity func() []byte
	// Trace is told of every request when it has been answered; nil: nobody. It is safe for
	// concurrent use, and what it takes the next request waits.
	Trace func(*transport.Request)
	// NoPoll is transport.Options.NoPoll; so it is anyway where our CPU time is limited (cgroups).
	NoPoll bool
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
	at  place
}

// Attach mounts on o.Mountpoint: everything that can be refused is refused here,
// before the core has changed anything on the region. Who touches the mount point
// waits until Serve.
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

// Close takes the mount back. Not after Start.
func (c *Conn) Close() {
	_ = c.at.unmount(Lazy)
	_ = unix.Close(c.fd)
}

// Server is a mounted filesystem. Mounted -> serving (Serve) -> unmounted (Serve
// has returned): by Unmount, by umount(8), or by an abort of the connection.
type Server struct {
	opt    Options
	uring  *transport.Uring // nil: by /dev/fuse
	whyNot error            // TransportAuto: why uring is nil
	fuse   *fuse.Server     // for notifications; it never serves
	serves transport.Filesystem
	late   *sync.WaitGroup // Adapter.late
	fd     int
	at     place
	began  chan struct{}     // closed by Serve, when conn is set
	conn   *transport.Server // immutable then
}

// Capabilities are what we ask the kernel for beyond go-fuse's defaults. Each is
// honoured: DONT_MASK in Mknod, Mkdir and Create, EXPORT_SUPPORT in Lookup,
// HANDLE_KILLPRIV_V2 in SetAttr and Write, SETXATTR_EXT in SetXAttr, IOCTL_DIR in Ioctl.
//
// ASYNC_DIO comes with DAXAlways only: the kernel drops pages before it sends an asynchronous
// direct write, but not after it, so one that is read back in between would stay. Past the page
// cache endBypass takes care of that; with a cache in use every file has such pages.
const Capabilities = fuse.CAP_DONT_MASK | fuse.CAP_EXPORT_SUPPORT |
	fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_DIRECT_IO_ALLOW_MMAP | fuse.CAP_PARALLEL_DIROPS |
	fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_SETXATTR_EXT | fuse.CAP_IOCTL_DIR

// Start answers the kernel's INIT for core. It owns the connection, also when it
// fails. The mount works from Serve on.
func (c *Conn) Start(core *fs.FS) (*Server, error) {
	o := &c.opt
	a := New(core, o.DAX, o.Info)
	a.panicked, a.activity = o.Panicked, o.Activity
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

// Transport is how requests come; and if that is /dev/fuse though nobody asked for it, why.
func (s *Server) Transport() (t Transport, whyNot error) {
	if s.uring != nil {
		return TransportUring, nil
	}
	return TransportDev, s.whyNot
}

// init answers INIT by a go-fuse server, which sends notifications from then on, and tells the
// other one, which answers slow requests, what was negotiated: by the same INIT.
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
		a.dropping.Total = min(droppingMax, max(1, s.uring.Depth()*3/8)) // some places are left for what they wait for
		a.dropping.Each = a.dropping.Total
	}
	mo := &fuse.MountOptions{
		Name: Type, FsName: o.Source, Logger: o.Log,
		MaxWrite: transport.MaxIO, MaxBackground: 256,
		DisableSplice:        true,
		EnableSymlinkCaching: true, // a link's target never changes
		EnableAcl:            true, // the kernel judges; the core keeps mode and lists one
		// With the kernel's cache in charge, a change of mtime by our own write
		// must not throw its pages away.
		ExplicitDataCacheControl: o.DAX != DAXAlways,
		ExtraCapabilities:        caps,
		PanicHandler: func(v any) fuse.Status {
			a.Panicked(v)
			return fuse.EIO
		},
	}
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0) // go-fuse closes it some time
	if err != nil {
		return err
	}
	if s.fuse, err = fuse.NewServer(a, fmt.Sprintf("/dev/fd/%d", fd), mo); err != nil {
		return err
	}
	a.protocol = fuse.NewProtocolServer(a, mo)
	var out [256]byte
	if n, st := a.protocol.HandleRequest([][]byte{bytesOf(s.fuse.KernelSettings())}, [][]byte{out[:]}); n == 0 || !st.Ok() {
		return fmt.Errorf("INIT once more: %v", st)
	}
	return nil
}

// Serve answers the kernel until the filesystem is unmounted. No request is in
// flight when it returns.
func (s *Server) Serve() {
	n := runtime.NumCPU()
	procs := runtime.GOMAXPROCS(0)
	// A queue that has read a request must go on at once, also while goroutines keep as
	// many processors busy as there are.
	runtime.GOMAXPROCS(procs + n)
	defer runtime.GOMAXPROCS(procs)
	o := transport.Options{
		Warn:   s.opt.Log.Printf,
		Abort:  s.abort,
		Trace:  s.opt.Trace,
		NoPoll: s.opt.NoPoll || procs < n, // Go knows of a limit to our CPU time
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

// abort ends the connection: by its file of fusectl, which its owner may write to, else by an
// unmount, which only root's aborts.
func (s *Server) abort() {
	if Abort(s.at.minor) != nil {
		_ = s.at.unmount(Force)
	}
}

// Stats is what was served since Serve began, for which it waits. It is safe for concurrent use.
func (s *Server) Stats() transport.Stats {
	<-s.began
	return s.conn.Stats()
}

// SharedMmap reports whether files can be mapped shared: always with dax=never,
// otherwise from Linux 6.6 on.
func (s *Server) SharedMmap() bool {
	return s.opt.DAX == DAXNever || s.fuse.KernelSettings().Flags64()&fuse.CAP_DIRECT_IO_ALLOW_MMAP != 0
}

// Unmount asks for the end of Serve. It unmounts what Attach mounted, also when that was moved, and
// fails with ErrCovered while something else is mounted on it.
func (s *Server) Unmount(mode UnmountMode) error { return s.at.unmount(mode) }
