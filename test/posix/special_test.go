package posix

import (
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// specialCases checks files other than regular files.
var specialCases = []testCase{
	{name: "special/attributes", run: func(c *ctx) {
		for i, k := range []uint32{unix.S_IFREG, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR, unix.S_IFBLK} {
			for _, dev := range []uint64{0, unix.Mkdev(1, 3), unix.Mkdev(255, 255), unix.Mkdev(300, 70000), unix.Mkdev(4095, 0xfffff)} {
				n := fmt.Sprintf("%d-%d", i, dev)
				c.do(unix.Mknod(n, k|0o4751, int(dev)))
				st := c.stat(n)
				eq(c, st.Mode, k|0o4751, "mode")
				want := dev
				if k != unix.S_IFCHR && k != unix.S_IFBLK {
					want = 0
				}
				eq(c, st.Rdev, want, "device of type %o", k)
				eq(c, st.Size, 0, "size")
				eq(c, st.Nlink, 1, "links")
			}
		}
	}},
	{name: "special/fifo", run: func(c *ctx) {
		c.do(unix.Mkfifo("p", 0o644))
		c.is(try("p", wo|unix.O_NONBLOCK), unix.ENXIO, "writer without a reader")
		r := c.open("p", ro|unix.O_NONBLOCK)
		w := c.open("p", wo|unix.O_NONBLOCK)
		_, err := unix.Read(r, make([]byte, 5))
		c.is(err, unix.EAGAIN, "reading what is empty")
		_, err = unix.Write(w, []byte("hello"))
		c.do(err)
		b := make([]byte, 10)
		n, err := unix.Read(r, b)
		c.do(err)
		eq(c, string(b[:n]), "hello", "content")
		eq(c, c.size("p"), 0, "st_size")
		c.close(w)
		n, err = unix.Read(r, b)
		c.is(err, nil, "reading without a writer")
		eq(c, n, 0, "bytes")
		_, err = unix.Seek(r, 0, 0)
		c.is(err, unix.ESPIPE, "lseek")
		c.do(unix.Link("p", "q"))
		w = c.open("q", wo|unix.O_NONBLOCK)
		_, err = unix.Write(w, []byte("by link"))
		c.do(err)
		n, _ = unix.Read(r, b)
		eq(c, string(b[:n]), "by link", "what another name wrote")
	}},
	{name: "special/fifo-blocks-until-both", run: func(c *ctx) {
		c.do(unix.Mkfifo("p", 0o644))
		got := make(chan string)
		go func() {
			fd, err := unix.Open(c.dir+"/p", ro|unix.O_CLOEXEC, 0)
			if err != nil {
				got <- err.Error()
				return
			}
			defer unix.Close(fd)
			b := make([]byte, 10)
			n, _ := unix.Read(fd, b)
			got <- string(b[:n])
		}()
		w := c.open("p", wo)
		_, err := unix.Write(w, []byte("hello"))
		c.do(err)
		eq(c, <-got, "hello", "what the reader got")
	}},
	{name: "special/socket", run: func(c *ctx) {
		l, err := net.Listen("unix", "/proc/thread-self/cwd/s")
		if err != nil {
			c.fatalf("%v", err)
		}
		defer l.Close()
		c.oct(c.stat("s").Mode&unix.S_IFMT, unix.S_IFSOCK, "what bind makes")
		go func() {
			if conn, err := l.Accept(); err == nil {
				_, _ = conn.Write([]byte("hello"))
				conn.Close()
			}
		}()
		conn, err := net.Dial("unix", "/proc/thread-self/cwd/s")
		c.do(err)
		b := make([]byte, 10)
		n, _ := conn.Read(b)
		conn.Close()
		eq(c, string(b[:n]), "hello", "what came through")
		_, err = net.Listen("unix", "/proc/thread-self/cwd/s")
		c.is(err, unix.EADDRINUSE, "bind over it")
		c.do(unix.Chmod("s", 0o700))
		c.as(bob, func() {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			c.do(err)
			c.keep(fd)
			c.is(unix.Connect(fd, &unix.SockaddrUnix{Name: "s"}), unix.EACCES, "connect by one who may not write it")
		})
	}},
	{name: "special/device", run: func(c *ctx) {
		c.do(unix.Mknod("null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		c.do(unix.Mknod("zero", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))))
		fd := c.open("zero", rw)
		eq(c, c.pread(fd, 5, 0), strings.Repeat("\x00", 5), "/dev/zero by another name")
		_, err := unix.Write(c.open("null", wo), []byte("x"))
		c.is(err, nil, "/dev/null by another name")
		eq(c, c.size("null"), 0, "size")
		c.as(bob, func() {
			c.is(try("null", rw), nil, "a device that everybody may use")
			c.is(try("zero", ro), unix.EACCES, "one that only root may")
		})
	}},
}
