package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs/fusefs"
	"github.com/daxfsd/daxfsd/fs/transport"
	"github.com/daxfsd/daxfsd/pmem"
)

// nullFS is the null bound: the most that a filesystem over these transports can reach. It has
// dataFiles files, each a part of one slice. A READ is answered with a part of the slice, exactly
// as daxfsd answers from its region. A WRITE is copied into the slice; a bound that discarded the
// bytes could be approached by no filesystem. There are no locks, no lookups, no times, and no
// durability. A file or directory that is created is only a number: its name cannot be found, but
// any name can be removed.
type nullFS struct {
	size  int64
	slice []byte
	raw   *fuse.ProtocolServer // answers the requests that nullQueue does not
	nodes atomic.Uint64        // files and directories created so far
}

// nullQueue is one thread's entry for requests.
type nullQueue struct {
	*nullFS
}

// forever is how long names and attributes are valid, in seconds.
const forever = 1 << 30

// serveNull serves files of size bytes on mountpoint, with daxfsd's INIT and as many threads of the
// same priority.
func serveNull(mountpoint string, size int64, uring bool) error {
	n := &nullFS{size: size}
	var err error
	if n.slice, err = unix.Mmap(-1, 0, int(dataFiles*size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS); err != nil {
		return err
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,max_read=%d,default_permissions,allow_other", fd, transport.MaxIO)
	if err := unix.Mount("null", mountpoint, "fuse.compare", 0, data); err != nil {
		return fmt.Errorf("mounting on %s: %w", mountpoint, err)
	}
	// The same options as fs/fusefs uses with dax=always.
	options := &fuse.MountOptions{
		Name: "compare", FsName: "null", Logger: log.New(io.Discard, "", 0),
		MaxWrite: transport.MaxIO, MaxBackground: 256,
		DisableSplice: true, EnableSymlinkCaching: true, EnableAcl: true,
		ExtraCapabilities: fusefs.Capabilities,
	}
	var rings *transport.Uring
	if uring {
		if rings, err = transport.NewUring(); err != nil {
			return err
		}
		options.ExtraCapabilities |= transport.CapUring
	}
	initFD, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	raw := fuse.NewDefaultRawFileSystem()
	server, err := fuse.NewServer(raw, fmt.Sprintf("/dev/fd/%d", initFD), options)
	if err != nil {
		return err
	}
	if uring && server.KernelSettings().Flags64()&transport.CapUring == 0 {
		return fmt.Errorf("%w: the kernel does not offer it", transport.ErrUring)
	}
	n.raw = fuse.NewProtocolServer(raw, options)
	if err := n.replayInit(server.KernelSettings()); err != nil {
		return err
	}
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + runtime.NumCPU())
	transportOptions := transport.Options{
		Warn:  func(format string, a ...any) { fmt.Fprintf(os.Stderr, format+"\n", a...) },
		Abort: func() { _ = fusefs.Unmount(mountpoint, fusefs.Force) },
	}
	transport.Prioritize()
	if uring {
		rings.Serve(fd, n, transportOptions).Wait()
	} else {
		transport.Dev(fd, n, runtime.NumCPU(), transportOptions).Wait()
	}
	return nil
}

// Queue returns the entry of a thread.
func (n *nullFS) Queue(int) transport.Queue { return &nullQueue{nullFS: n} }

// SlowPath answers the requests that nullQueue does not, nearly all with ENOSYS.
func (n *nullFS) SlowPath(in, out []byte, _ *transport.Slot) int {
	l, _ := n.raw.HandleRequest([][]byte{in}, [][]byte{out})
	return l
}

// Ended is called at the end of the connection.
func (n *nullFS) Ended() {}

// Panicked is called with the value of a panic.
func (n *nullFS) Panicked(v any) { panic(v) }

// part returns the part of the slice that holds bytes [off, off+size) of a file.
func (n *nullFS) part(node, off uint64, size int) []byte {
	if node < 2 || node >= 2+dataFiles || off >= uint64(n.size) {
		return nil
	}
	end := min(int64(off)+int64(size), n.size)
	base := int64(node-2) * n.size
	return n.slice[base+int64(off) : base+end]
}

// Read answers from the slice.
func (q *nullQueue) Read(h *transport.InHeader, in *transport.ReadIn, out []byte) (int, syscall.Errno) {
	return pmem.Copy(out, q.part(h.NodeID, in.Offset, len(out))), 0
}

// Write copies into the slice.
func (q *nullQueue) Write(h *transport.InHeader, in *transport.WriteIn, data []byte) (int, syscall.Errno) {
	return copy(q.part(h.NodeID, in.Offset, len(data)), data), 0
}

// attr fills in the attributes of a node.
func (n *nullFS) attr(node uint64, a *transport.Attr) {
	*a = transport.Attr{Ino: node, Mode: unix.S_IFREG | 0o644, Nlink: 1, Size: uint64(n.size), Blocks: uint64(n.size) / 512, Blksize: 4096}
	switch {
	case node == 1 || node&nullDir != 0:
		*a = transport.Attr{Ino: node, Mode: unix.S_IFDIR | 0o755, Nlink: 2}
	case node >= nullMade:
		a.Size, a.Blocks = 0, 0
	}
}

// Node numbers of created files and directories.
const (
	nullMade = 1 << 20
	nullDir  = 1 << 50 // set for a directory
)

// made answers the creation of a file (dir is 0) or of a directory (dir is nullDir).
func (n *nullFS) made(dir uint64, out *transport.EntryOut) syscall.Errno {
	out.NodeID, out.EntryValid, out.AttrValid = dir|nullMade+n.nodes.Add(1), forever, forever
	n.attr(out.NodeID, &out.Attr)
	return 0
}

// Lookup finds the files data.0 and so on.
func (q *nullQueue) Lookup(h *transport.InHeader, name string, out *transport.EntryOut) syscall.Errno {
	number, ok := strings.CutPrefix(name, "data.")
	i, err := strconv.Atoi(number)
	if h.NodeID != 1 || !ok || err != nil || i < 0 || i >= dataFiles {
		return syscall.ENOENT
	}
	out.NodeID, out.EntryValid, out.AttrValid = uint64(2+i), forever, forever
	q.attr(out.NodeID, &out.Attr)
	return 0
}

// Getattr answers stat(2).
func (q *nullQueue) Getattr(h *transport.InHeader, _ *transport.GetattrIn, out *transport.AttrOut) syscall.Errno {
	out.AttrValid = forever
	q.attr(h.NodeID, &out.Attr)
	return 0
}

// Setattr changes nothing.
func (q *nullQueue) Setattr(h *transport.InHeader, _ *transport.SetattrIn, out *transport.AttrOut) syscall.Errno {
	return q.Getattr(h, nil, out)
}

// Open returns the flags that daxfsd returns with dax=always.
func (q *nullQueue) Open(_ *transport.InHeader, _ *transport.OpenIn, out *transport.OpenOut) syscall.Errno {
	out.OpenFlags = fuse.FOPEN_NOFLUSH | fuse.FOPEN_DIRECT_IO | fuse.FOPEN_PARALLEL_DIRECT_WRITES
	return 0
}

// Release does nothing.
func (q *nullQueue) Release(*transport.InHeader, *transport.ReleaseIn) syscall.Errno { return 0 }

// Fsync does nothing.
func (q *nullQueue) Fsync(*transport.InHeader, *transport.FsyncIn) syscall.Errno { return 0 }

// Forget does nothing.
func (q *nullQueue) Forget(uint64, uint64) {}

// Create creates a file.
func (q *nullQueue) Create(h *transport.InHeader, _ *transport.CreateIn, _ string, out *transport.CreateOut) syscall.Errno {
	_ = q.Open(h, nil, &out.Open)
	return q.made(0, &out.Entry)
}

// Mkdir creates a directory.
func (q *nullQueue) Mkdir(_ *transport.InHeader, _ *transport.MkdirIn, _ string, out *transport.EntryOut) syscall.Errno {
	return q.made(nullDir, out)
}

// Symlink fails.
func (q *nullQueue) Symlink(*transport.InHeader, string, string, *transport.EntryOut) syscall.Errno {
	return syscall.EROFS
}

// Link fails.
func (q *nullQueue) Link(*transport.InHeader, *transport.LinkIn, string, *transport.EntryOut) syscall.Errno {
	return syscall.EROFS
}

// Unlink succeeds and does nothing.
func (q *nullQueue) Unlink(*transport.InHeader, string) syscall.Errno { return 0 }

// Rmdir succeeds and does nothing.
func (q *nullQueue) Rmdir(*transport.InHeader, string) syscall.Errno { return 0 }

// Rename succeeds and does nothing.
func (q *nullQueue) Rename(*transport.InHeader, *transport.Rename2In, string, string) syscall.Errno {
	return 0
}

// Readlink fails: there is no link.
func (q *nullQueue) Readlink(*transport.InHeader, []byte) (int, syscall.Errno) {
	return 0, syscall.EINVAL
}

// Readdir lists nothing.
func (q *nullQueue) Readdir(*transport.InHeader, *transport.ReadIn, bool, []byte) (int, syscall.Errno) {
	return 0, 0
}
