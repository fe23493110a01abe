package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cavaliergopher/cpio"
)

func TestPins(t *testing.T) {
	p, err := readPins(pinsText)
	if err != nil {
		t.Fatal(err)
	}
	kernels := 0
	for _, k := range p.packages {
		if strings.Contains(k.name, p.kernel) {
			kernels++
		}
	}
	files := 0
	for i, part := range p.parts {
		files += len(part.files)
		if (i == 0) != (part.name == "") || len(part.files) == 0 || len(part.trees) == 0 {
			t.Errorf("part %d is %+v", i, part)
		}
	}
	if kernels != 3 || files < len(p.packages)-kernels || len(p.modules) == 0 || len(p.parts) != 2 {
		t.Errorf("%d packages of kernel %s, %d files of %d packages in %d parts, modules %v", kernels, p.kernel, files, len(p.packages), len(p.parts), p.modules)
	}
	if got := p.suites(); !slices.Equal(got, []string{"trixie-backports", "bookworm"}) {
		t.Errorf("suites %v", got)
	}
	for _, bad := range []string{"kernel", "package bookworm libc6", "fetch it", "kernel a b", "part"} {
		if _, err := readPins(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// TestCopied checks that control and acknowledger receive a guest's output in the way that once
// copies it.
func TestCopied(t *testing.T) {
	said := 0
	c := &control{said: func() { said++ }}
	var sink, guest bytes.Buffer
	for _, to := range []io.Writer{c, acknowledger{&sink, &guest}} {
		r, w, err := socketpair()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := io.WriteString(w, "up 4.2\nexit 0\nhalf"); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(to, r); err != nil {
			t.Fatal(err)
		}
	}
	if said == 0 {
		t.Error("said was not called: the guest would be started again while its job runs")
	}
	if c.text.String() != sink.String() || guest.Len() != 2 {
		t.Errorf("heard %q and %q, acknowledged %d lines of 2", c.text.String(), sink.String(), guest.Len())
	}
}

func TestPayload(t *testing.T) {
	want := bytes.Repeat([]byte("kernel"), 100)
	const setup = 3 // sectors after the first
	image := make([]byte, (setup+1)*512)
	image[0x1f1] = setup
	copy(image[0x202:], "HdrS")
	binary.LittleEndian.PutUint32(image[0x248:], 64)
	binary.LittleEndian.PutUint32(image[0x24c:], uint32(len(want)+4))
	image = slices.Concat(image, make([]byte, 64), want, []byte("size"), []byte("more"))
	if got, err := payload(image); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
	}
	if _, err := payload(image[:len(image)-10]); err == nil {
		t.Error("a payload that is cut off is accepted")
	}
	if _, err := payload(make([]byte, 10000)); err == nil {
		t.Error("zeros are accepted as a kernel")
	}
}

func TestArchive(t *testing.T) {
	dir := t.TempDir()
	program, text := filepath.Join(dir, "p"), filepath.Join(dir, "t")
	if err := errors.Join(os.WriteFile(program, []byte("#!"), 0o755), os.WriteFile(text, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := writeArchive(&b, []string{"proc"}, map[string]string{"usr/bin/p": program, "usr/t": text}); err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := cpio.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Mode.String()+" "+h.Name+" "+string(data))
	}
	want := []string{"040755 proc ", "040755 usr ", "040755 usr/bin ", "0100755 usr/bin/p #!", "0100644 usr/t "}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestUnavailable checks that Prepare reports what is missing on the host, and what to do.
func TestUnavailable(t *testing.T) {
	t.Setenv("DAXFSD_VM_CACHE", t.TempDir())
	t.Setenv("DAXFSD_VM_MIRROR", "file:///nowhere")
	if _, err := Prepare(t.Context(), io.Discard); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "file:///nowhere") {
		t.Errorf("without a mirror: %v", err)
	}
	if left, err := filepath.Glob(os.Getenv("DAXFSD_VM_CACHE") + "/*"); err != nil || len(left) != 1 {
		t.Errorf("in the cache there is %v, want the lock (%v)", left, err)
	}
	t.Setenv("PATH", "")
	if _, err := Prepare(t.Context(), io.Discard); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "qemu-system-x86_64 is missing: run `make deps-vm`") {
		t.Errorf("without QEMU: %v", err)
	}
}

func TestTail(t *testing.T) {
	var l tail
	for range 10 * tailSize {
		if n, err := l.Write([]byte("x")); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if _, err := l.Write([]byte("end")); err != nil || len(l.String()) != tailSize || !strings.HasSuffix(l.String(), "xend") {
		t.Errorf("it kept %d bytes", len(l.String()))
	}
}
