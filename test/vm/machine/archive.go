package machine

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/cavaliergopher/cpio"
)

// writeArchive writes an initramfs: files (name in the guest -> name on the host), and the
// directories above them. The kernel unpacks several concatenated archives.
func writeArchive(w io.Writer, dirs []string, files map[string]string) error {
	b := bufio.NewWriterSize(w, 1<<20)
	c := cpio.NewWriter(b)
	made := map[string]bool{".": true}
	var mkdir func(string) error
	mkdir = func(dir string) error {
		if made[dir] {
			return nil
		}
		made[dir] = true
		if err := mkdir(path.Dir(dir)); err != nil {
			return err
		}
		return c.WriteHeader(&cpio.Header{Name: dir, Mode: cpio.TypeDir | 0o755, Links: 2})
	}
	for _, d := range dirs {
		if err := mkdir(d); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := mkdir(path.Dir(name)); err != nil {
			return err
		}
		if err := addFile(c, name, files[name]); err != nil {
			return err
		}
	}
	if err := c.Close(); err != nil {
		return err
	}
	return b.Flush()
}

func writeArchiveFile(name string, dirs []string, files map[string]string) error {
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer out.Close()
	return writeArchive(out, dirs, files)
}

func addFile(c *cpio.Writer, name, from string) error {
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	mode := cpio.FileMode(0o644)
	if st.Mode()&0o111 != 0 {
		mode = 0o755
	}
	if err := c.WriteHeader(&cpio.Header{Name: name, Mode: cpio.TypeReg | mode, Links: 1, Size: st.Size()}); err != nil {
		return err
	}
	if n, err := io.Copy(c, f); err != nil || n != st.Size() {
		return fmt.Errorf("packing %s: %d of %d bytes: %w", from, n, st.Size(), err)
	}
	return nil
}

// payload returns the compressed kernel within a bootable image, so that the host can unpack it,
// which is faster than the loader under emulation. The offsets are those of the x86 boot protocol,
// Documentation/arch/x86/boot.rst.
func payload(image []byte) ([]byte, error) {
	const setupSects, magic, payloadOffset, payloadLength = 0x1f1, 0x202, 0x248, 0x24c
	if len(image) < 0x260 || string(image[magic:magic+4]) != "HdrS" {
		return nil, fmt.Errorf("not a bootable kernel image: no HdrS at %#x", magic)
	}
	u32 := func(at int) int {
		return int(image[at]) | int(image[at+1])<<8 | int(image[at+2])<<16 | int(image[at+3])<<24
	}
	from := (max(int(image[setupSects]), 1)+1)*512 + u32(payloadOffset)
	to := from + u32(payloadLength) - 4 // the last 4 bytes are the unpacked size
	if to > len(image) || to < from+4 {
		return nil, fmt.Errorf("its payload is at %d to %d of %d bytes", from, to, len(image))
	}
	return image[from:to], nil
}
