// Slots is a cache of fixed-size slots in one large file of a daxfsd mount, shared by any number of
// processes. Values are read by reference: what get returns is the file's memory, mapped in the
// largest pages, and not a copy.
//
//	slots create FILE N      makes a cache of N slots of 1 MiB
//	slots put FILE KEY       stores the standard input under a key
//	slots get FILE KEY       writes the value to the standard output
//	slots hold FILE KEY      the same, but waits for the end of the standard input in between
//	slots die FILE KEY       is a put that dies in the middle
//
// A slot is locked by fcntl(2) on the file: shared by whoever has a reference, exclusively by
// whoever stores. The kernel drops the locks of a process that dies, so a slot that a dead writer
// left is free. The space of a deleted cache comes back when the last process has unmapped it.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/direct"
)

const (
	slotSize   = 1 << 20
	headerSize = 64      // of each slot: length, hash of the key, time; a length of 0 is a free slot
	headers    = 2 << 20 // bytes before the first slot; a page, if there are such pages
	ways       = 8       // slots in which a key may be
)

var le = binary.LittleEndian

// cache is a cache that this process has mapped.
type cache struct {
	file  *os.File // whose locks are the slots'
	m     *direct.Mapping
	slots uint64
}

// open maps a cache, and gives it n slots if it has fewer.
func open(path string, flags int, n int64) (*cache, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, err
	}
	d, err := direct.Open(f)
	if err != nil {
		return nil, err
	}
	defer d.Close() // the mapping stays
	size, err := d.Size()
	if err == nil && size < headers+n*slotSize {
		size = headers + n*slotSize
		err = d.Grow(size)
	}
	if err != nil {
		return nil, err
	}
	m, err := d.Map(0, size, direct.MapOptions{Write: true, PageSize: headers})
	return &cache{f, m, uint64(size-headers) / slotSize}, err
}

// lock locks slot i: F_RDLCK, F_WRLCK or F_UNLCK. It returns false if another process has it.
func (c *cache) lock(i uint64, how int16) bool {
	l := unix.Flock_t{Type: how, Start: int64(i), Len: 1}
	return unix.FcntlFlock(c.file.Fd(), unix.F_OFD_SETLK, &l) == nil
}

func (c *cache) header(i uint64) []byte { return c.m.Bytes()[i*headerSize:][:headerSize] }
func (c *cache) slot(i uint64) []byte   { return c.m.Bytes()[headers+i*slotSize:][:slotSize] }

// choose locks the slot of highest rank, of those in which a key may be and that are not locked. A
// slot of negative rank is left out.
func (c *cache) choose(hash uint64, how int16, rank func(h []byte) int64) (best uint64, ok bool) {
	top := int64(-1)
	for k := range min(ways, c.slots) {
		i := (hash + k) % c.slots
		if !c.lock(i, how) {
			continue
		}
		if r := rank(c.header(i)); r <= top {
			c.lock(i, unix.F_UNLCK)
		} else {
			if ok {
				c.lock(best, unix.F_UNLCK)
			}
			best, top, ok = i, r, true
		}
	}
	return best, ok
}

// get returns a reference to the value of a key, the latest one. It is valid until release is
// called, whatever other processes do.
func (c *cache) get(hash uint64) (value []byte, release func(), err error) {
	i, ok := c.choose(hash, unix.F_RDLCK, func(h []byte) int64 {
		if le.Uint64(h) != 0 && le.Uint64(h[8:]) == hash {
			return int64(le.Uint64(h[16:]))
		}
		return -1
	})
	if !ok {
		return nil, nil, errors.New("no such key")
	}
	n := le.Uint64(c.header(i))
	return c.slot(i)[:n:n], func() { c.lock(i, unix.F_UNLCK) }, nil
}

// put stores a value under a key: in the slot of its former value, else in a free one, else in that
// of the oldest value, but in none that is used. half is called when half is stored.
//
// Persistence order:
//  1. the header: the slot is free
//  2. the value
//  3. the header: length, hash and time
func (c *cache) put(hash uint64, value []byte, half func(int)) error {
	if len(value) == 0 || len(value) > slotSize {
		return fmt.Errorf("a value of %d bytes: 1 to %d are possible", len(value), slotSize)
	}
	i, ok := c.choose(hash, unix.F_WRLCK, func(h []byte) int64 {
		if le.Uint64(h[8:]) == hash {
			return 1 << 62
		}
		return 1<<62 - 1 - int64(le.Uint64(h[16:])) // a free slot has time 0
	})
	if !ok {
		return errors.New("all slots of the key are in use")
	}
	defer c.lock(i, unix.F_UNLCK)
	h, at := c.header(i), int64(i)
	clear(h)
	err := c.m.Flush(at*headerSize, headerSize)
	half(copy(c.slot(i), value[:len(value)/2]))
	copy(c.slot(i), value)
	if err = errors.Join(err, c.m.Flush(headers+at*slotSize, int64(len(value)))); err != nil {
		return err
	}
	le.PutUint64(h[16:], uint64(time.Now().UnixNano()))
	le.PutUint64(h[8:], hash)
	le.PutUint64(h, uint64(len(value)))
	return c.m.Flush(at*headerSize, headerSize)
}

func run(command, path, arg string) error {
	n, flags := int64(0), 0
	if command == "create" {
		flags = os.O_CREATE | os.O_EXCL
		if _, err := fmt.Sscan(arg, &n); err != nil || n < 1 || n > headers/headerSize {
			return fmt.Errorf("%q slots: 1 to %d are possible", arg, headers/headerSize)
		}
	}
	key := fnv.New64a()
	io.WriteString(key, arg)
	c, err := open(path, flags, n)
	if err != nil || n > 0 {
		return err
	}
	if command == "put" || command == "die" {
		value, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		return c.put(key.Sum64(), value, func(int) {
			if command == "die" {
				unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
		})
	}
	value, release, err := c.get(key.Sum64())
	if err != nil {
		return err
	}
	defer release()
	if command == "hold" {
		fmt.Fprintln(os.Stderr, "held")
		io.Copy(io.Discard, os.Stdin)
	}
	_, err = os.Stdout.Write(value) // from the file's memory
	return err
}

func main() {
	err := errors.New("usage: slots create FILE N | put FILE KEY | get FILE KEY | hold FILE KEY | die FILE KEY")
	if len(os.Args) == 4 && slices.Contains([]string{"create", "put", "get", "hold", "die"}, os.Args[1]) {
		err = run(os.Args[1], os.Args[2], os.Args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "slots:", err)
		os.Exit(1)
	}
}
