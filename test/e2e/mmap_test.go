package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

const (
	mmapPages = 2048
	page      = 4096
)

// TestMmap maps files of the mount, shared and private, in processes of their own.
func TestMmap(t *testing.T) {
	m := harness.New(t, 128<<20, 3*time.Minute)
	harness.RunChild(t, time.Minute, "mmap-write", m.Mountpoint)
	harness.RunChild(t, time.Minute, "mmap-check", m.Mountpoint)
	m.Again()
	harness.RunChild(t, time.Minute, "mmap-check", m.Mountpoint)

	// Bytes that were stored and synchronised survive a kill of the daemon.
	if err := os.Remove(m.Path("shared")); err != nil {
		t.Fatal(err)
	}
	harness.RunChild(t, time.Minute, "mmap-write", m.Mountpoint)
	m.Kill9()
	m.Up()
	harness.RunChild(t, time.Minute, "mmap-check", m.Mountpoint)
}

// mmapPage returns the content of page i of the file in a round.
func mmapPage(i, round int) []byte {
	b := make([]byte, page)
	rng := rand.New(rand.NewPCG(uint64(i), uint64(round)))
	for o := 0; o < page; o += 8 {
		binary.LittleEndian.PutUint64(b[o:], rng.Uint64())
	}
	return b
}

// mmapRound returns the round whose content page i keeps: odd pages are stored through the mapping,
// the others are left from write(2), and each fifth page is written by write(2) while it is mapped.
func mmapRound(i int) int {
	switch {
	case i%5 == 0:
		return 2
	case i%2 == 1:
		return 1
	}
	return 0
}

func mmapWrite(args []string) error {
	name := filepath.Join(args[0], "shared")
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	for i := range mmapPages {
		if _, err := file.WriteAt(mmapPage(i, 0), int64(i)*page); err != nil {
			return err
		}
	}
	shared, err := unix.Mmap(int(file.Fd()), 0, mmapPages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("MAP_SHARED: %w", err)
	}
	private, err := unix.Mmap(int(file.Fd()), 0, mmapPages*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("MAP_PRIVATE: %w", err)
	}
	// A second process watches the same file through its own mapping.
	watch, stop, err := startWatch(name)
	if err != nil {
		return err
	}
	defer stop()

	for _, i := range rand.New(rand.NewPCG(3, 4)).Perm(mmapPages) {
		content := shared[i*page : (i+1)*page]
		if !bytes.Equal(content, mmapPage(i, 0)) {
			return fmt.Errorf("page %d is not what write(2) wrote", i)
		}
		if i%2 == 1 {
			copy(content, mmapPage(i, 1))
		}
	}
	for i := range mmapPages { // stores to a private mapping, which no other process may see
		copy(private[i*page:], mmapPage(i, 9)[:64])
	}
	if err := unix.Msync(shared, unix.MS_SYNC); err != nil {
		return fmt.Errorf("msync: %w", err)
	}
	for i := 0; i < mmapPages; i += 5 {
		if _, err := file.WriteAt(mmapPage(i, 2), int64(i)*page); err != nil {
			return err
		}
		if !bytes.Equal(shared[i*page:(i+1)*page], mmapPage(i, 2)) {
			return fmt.Errorf("page %d: a write(2) under the mapping is not seen through it", i)
		}
	}
	if err := watch(); err != nil {
		return err
	}
	for i := range mmapPages {
		if !bytes.Equal(private[i*page:i*page+64], mmapPage(i, 9)[:64]) {
			return fmt.Errorf("page %d: a private store is lost", i)
		}
	}
	// A mapping beyond the end of file becomes accessible when the file grows.
	if err := file.Truncate(mmapPages*page + 100); err != nil {
		return err
	}
	tail, err := unix.Mmap(int(file.Fd()), mmapPages*page, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(tail, "tail")
	tail[200] = 'x' // beyond the end of file: must never become part of the file
	if err := unix.Msync(tail, unix.MS_SYNC); err != nil {
		return err
	}
	for _, mapping := range [][]byte{shared, private, tail} {
		if err := unix.Munmap(mapping); err != nil {
			return err
		}
	}
	return nil
}

// startWatch starts a process with a mapping. watch returns what that process found.
func startWatch(name string) (watch func() error, stop func(), err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := harness.Child(ctx, "mmap-watch", name)
	in, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, nil, err
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, nil, err
	}
	return func() error {
		in.Close()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("the second process: %w: %s", err, out.String())
		}
		return nil
	}, cancel, nil
}

// mmapWatch maps and touches the file, and waits for the end of its input. Then it must see
// everything that the first process stored and wrote.
func mmapWatch(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := unix.Mmap(int(f.Fd()), 0, mmapPages*page, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	var sum byte
	for i := range mmapPages {
		sum += b[i*page]
	}
	_, _ = os.Stdin.Read([]byte{sum})
	for i := range mmapPages {
		if !bytes.Equal(b[i*page:(i+1)*page], mmapPage(i, mmapRound(i))) {
			return fmt.Errorf("page %d is not seen by another process's mapping", i)
		}
	}
	return nil
}

// mmapCheck reads the file in three ways.
func mmapCheck(args []string) error {
	f, err := os.Open(filepath.Join(args[0], "shared"))
	if err != nil {
		return err
	}
	defer f.Close()
	read, err := os.ReadFile(f.Name())
	if err != nil {
		return err
	}
	if len(read) != mmapPages*page+100 {
		return fmt.Errorf("the file has %d bytes, want %d", len(read), mmapPages*page+100)
	}
	tail := make([]byte, 100)
	copy(tail, "tail")
	for how, flag := range map[string]int{"read(2)": 0, "MAP_SHARED": unix.MAP_SHARED, "MAP_PRIVATE": unix.MAP_PRIVATE} {
		b := read
		if flag != 0 {
			if b, err = unix.Mmap(int(f.Fd()), 0, len(read), unix.PROT_READ, flag); err != nil {
				return fmt.Errorf("%s: %w", how, err)
			}
		}
		for i := range mmapPages {
			if !bytes.Equal(b[i*page:(i+1)*page], mmapPage(i, mmapRound(i))) {
				return fmt.Errorf("%s: page %d has not its content", how, i)
			}
		}
		if !bytes.Equal(b[mmapPages*page:], tail) {
			return fmt.Errorf("%s: the last bytes are %q", how, b[mmapPages*page:])
		}
	}
	return nil
}
