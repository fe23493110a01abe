package machine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Device is a file of the host that the guest sees as persistent memory: an NVDIMM, or
// virtio-pmem. Devices of each kind are numbered in the order of Boot.Devices (nmem0, nmem1, ...).
// The guest's stores are in the file at once, whenever the guest dies. The host's memory is only
// taken for those parts that the guest touches.
type Device struct {
	File   string // created, or extended with a hole, to Size
	Size   int64  // bytes, a multiple of 2 MiB
	Virtio bool
}

// A Boot is one start of a guest, for one job.
type Boot struct {
	Guest   *Guest
	Parts   []string // names of further parts in test/vm/machine/pins
	Devices []Device
	Files   map[string]string // files for the guest's /job: name in the guest -> name on the host
	Job     string            // script for sh, run in /job; its exit code is the result
	Append  string            // additions to the kernel's command line
	Limit   time.Duration     // time after which the guest is killed
	Output  io.Writer         // receives the output of the job
	Ports   []io.Writer       // receive what the job writes to /dev/vport0p3 and following; see Run
	Started func(pid int)     // called with QEMU's pid; may be nil
}

// Reasons why a boot ends without an exit code of the job. Another reason is the end of its
// context.
var (
	ErrLimit    = errors.New("the guest has not ended in time")
	ErrPanic    = errors.New("the guest's kernel panicked")
	ErrNoCode   = errors.New("the guest ended without an exit code")
	ErrEmulator = errors.New("the emulator ran stale code of the guest's kernel")
)

// attempts is the number of times that a guest is started until it comes up.
const attempts = 4

// upLimit is the time after which a guest whose job has not begun is killed and started again: many
// times what it takes.
const upLimit = 90 * time.Second

// firstPort is the number of the serial port of Ports[0]. Ports 1 and 2 are output and control.
const firstPort = 3

// Run boots, and returns the job's exit code. Cancelling ctx is the power cut: QEMU is killed, and
// Run returns the cause of ctx.
//
// A write to a port returns in the guest before the host has the bytes. If QEMU is killed in
// between, they are lost. Therefore the job can read from a port one byte for each line that has
// reached Ports.
//
// A guest whose kernel dies before the job has begun is started again: QEMU's emulation of several
// CPUs can run stale code of the kernel that another CPU has just patched (the sign is the kernel's
// "Oops: int3"). If that happens later, Run returns ErrEmulator.
func (b *Boot) Run(ctx context.Context) (code int, err error) {
	accel, err := b.Guest.accelerator(ctx)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "daxfsd-vm-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd")
	if err := b.pack(dir, initrd); err != nil {
		return 0, err
	}
	for _, d := range b.Devices {
		if err := d.make(); err != nil {
			return 0, err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.Limit, ErrLimit)
	defer cancel()
	for n := 1; ; n++ {
		e := b.once(ctx, initrd, accel)
		code, err = e.result(ctx)
		if err == nil || e.up || ctx.Err() != nil || n == attempts {
			return code, err
		}
	}
}

// pack writes the initramfs: the guest's own archive, those of the parts that the boot asks for,
// and the job's files.
func (b *Boot) pack(dir, initrd string) error {
	job := filepath.Join(dir, "job")
	if err := os.WriteFile(job, []byte(b.Job+"\n"), 0o755); err != nil {
		return err
	}
	files := map[string]string{"job/job": job}
	for name, from := range b.Files {
		files["job/"+name] = from
	}
	out, err := os.Create(initrd)
	if err != nil {
		return err
	}
	defer out.Close()
	for _, part := range append([]string{""}, b.Parts...) {
		if err := appendFile(out, b.Guest.archive(part)); err != nil {
			return err
		}
	}
	return writeArchive(out, nil, files)
}

// appendFile appends an archive to out, and zeros up to a multiple of 4 bytes, where the next
// archive can begin.
func appendFile(out io.Writer, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(out, f)
	if err == nil {
		_, err = out.Write(make([]byte, -n&3))
	}
	return err
}

func (d Device) make() error {
	f, err := os.OpenFile(d.File, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err == nil && st.Size() < d.Size {
		err = f.Truncate(d.Size)
	}
	return err
}

// command returns QEMU's arguments. The ports are descriptors 3 and up of the process: pipes, and
// sockets for b.Ports.
func (b *Boot) command(initrd string, accel []string) []string {
	args := append([]string{}, accel...)
	args = append(args, "-M", "q35,nvdimm=on,nvdimm-persistence=cpu", "-m", "2G,slots=8,maxmem=64G", "-smp", "2",
		"-nodefaults", "-display", "none", "-no-reboot", "-kernel", b.Guest.vmlinux(), "-initrd", initrd,
		// The clock is the emulator's: the kernel need not watch it, nor patch itself when the host
		// is slow.
		"-append", "console=ttyS0 quiet panic=-1 tsc=reliable "+b.Append,
		"-device", "virtio-serial-pci,max_ports=16") // the first virtio device: its ports are vport0pN
	for i, d := range b.Devices {
		id := "mem" + strconv.Itoa(i)
		args = append(args, "-object", fmt.Sprintf("memory-backend-file,id=%s,share=on,mem-path=%s,size=%d,align=2M", id, d.File, d.Size))
		if d.Virtio {
			args = append(args, "-device", "virtio-pmem-pci,memdev="+id)
		} else {
			args = append(args, "-device", fmt.Sprintf("nvdimm,id=nv%d,memdev=%s,unarmed=off", i, id))
		}
	}
	file := func(id string, fd int) string {
		if fd >= 3+firstPort {
			return fmt.Sprintf("socket,id=%s,fd=%d", id, fd)
		}
		return fmt.Sprintf("file,id=%s,path=/dev/fd/%d,append=on", id, fd)
	}
	args = append(args, "-chardev", file("console", 3), "-serial", "chardev:console")
	for port := 1; port < firstPort+len(b.Ports); port++ {
		id := "port" + strconv.Itoa(port)
		args = append(args, "-chardev", file(id, 3+port), "-device", fmt.Sprintf("virtserialport,chardev=%s,nr=%d", id, port))
	}
	return args
}

// end describes how one run of QEMU ended.
type end struct {
	up      bool // the job had begun
	code    int
	coded   bool   // there was an exit code
	console string // the end of the console's output
	qemu    string // output of QEMU itself
	err     error  // error of QEMU's process
}

// once starts QEMU and waits until it has ended.
func (b *Boot) once(ctx context.Context, initrd string, accel []string) (result end) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	starting := time.AfterFunc(upLimit, cancel)
	defer starting.Stop()
	console := &tail{}
	control := &control{said: func() { starting.Stop() }}
	sinks := append([]io.Writer{console, b.Output, control}, b.Ports...)
	qemu, err := find("qemu-system-x86_64")
	if err != nil {
		return end{err: err}
	}
	cmd := exec.CommandContext(ctx, qemu, b.command(initrd, accel)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	said := &tail{}
	cmd.Stdout, cmd.Stderr = said, said
	var copied sync.WaitGroup
	for i, sink := range sinks {
		pipe := os.Pipe
		if i >= firstPort {
			pipe = socketpair
		}
		ours, theirs, err := pipe()
		if err != nil {
			return end{err: err}
		}
		defer theirs.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
		if i >= firstPort {
			sink = acknowledger{sink, ours}
		}
		copied.Go(func() {
			defer ours.Close()
			if _, err := io.Copy(sink, ours); err != nil { // the guest must not block on a broken sink
				_, _ = io.Copy(io.Discard, ours)
			}
		})
	}
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig is sent when this thread dies
		err := cmd.Start()
		if err == nil {
			if b.Started != nil {
				b.Started(cmd.Process.Pid)
			}
			err = cmd.Wait()
		}
		ended <- err
	}()
	result.err = <-ended
	for _, file := range cmd.ExtraFiles {
		file.Close()
	}
	copied.Wait()
	result.console, result.qemu = console.String(), said.String()
	for lines := bufio.NewScanner(&control.text); lines.Scan(); {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "up":
			result.up = true
		case "exit":
			result.code, err = strconv.Atoi(rest)
			result.coded = err == nil
		}
	}
	return result
}

// result returns the job's exit code, or why there is none.
func (e *end) result(ctx context.Context) (int, error) {
	switch {
	case e.coded:
		return e.code, nil
	case ctx.Err() != nil:
		if cause := context.Cause(ctx); cause != ErrLimit {
			return 0, cause
		}
		return 0, fmt.Errorf("%w (begun: %v): the end of its console:\n%s%s", ErrLimit, e.up, e.console, e.qemu)
	case strings.Contains(e.console, "Oops: int3"):
		return 0, fmt.Errorf("%w: %s", ErrEmulator, e.console)
	case strings.Contains(e.console, "Kernel panic"):
		return 0, fmt.Errorf("%w: %s", ErrPanic, e.console)
	}
	return 0, fmt.Errorf("%w (%v): %s%s", ErrNoCode, e.err, e.qemu, e.console)
}

// socketpair returns a bidirectional pipe.
func socketpair() (ours, theirs *os.File, err error) {
	fd, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fd[0]), "port"), os.NewFile(uintptr(fd[1]), "port"), nil
}

// acknowledger passes writes to sink, and answers the guest with a byte for each line.
type acknowledger struct{ sink, guest io.Writer }

func (a acknowledger) Write(p []byte) (int, error) {
	n, err := a.sink.Write(p)
	if lines := bytes.Count(p[:n], []byte("\n")); lines > 0 {
		_, _ = a.guest.Write(make([]byte, lines)) // a guest that has ended does not read
	}
	return n, err
}

// control keeps the messages of the guest's init, and calls said with each; the first reports that
// the guest is up. The buffer is not embedded: io.Copy would call its ReadFrom, not Write.
type control struct {
	text bytes.Buffer
	said func()
}

func (c *control) Write(p []byte) (int, error) {
	c.said()
	return c.text.Write(p)
}

// tail keeps the last tailSize bytes that were written to it. It is not safe for concurrent use.
type tail struct{ b []byte }

const tailSize = 16 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 2*tailSize {
		t.b = append(t.b[:0], t.b[len(t.b)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.b[max(0, len(t.b)-tailSize):]) }
