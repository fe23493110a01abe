package mounted

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Each writer logs every change twice, on another filesystem: a line with "?"
// before it asks for it, the same line with "!" when it was acknowledged. Nothing
// is ever synchronised: what has returned is durable.
//
//	create NAME SIZE SEED    a new file of SIZE bytes made of SEED
//	append NAME SIZE SEED    the file grows to SIZE bytes
//	rename OLD NEW           NEW may exist and is replaced then
//	unlink NAME
//
// Of the change that was asked for last and not acknowledged, both outcomes, and
// for create and append any part, are right.

// TestKill9 kills the daemon under writers, again and again.
func TestKill9(t *testing.T) {
	const rounds, writers = 5, 4
	m := newMount(t, 512<<20, 4*time.Minute)
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	models := make([]map[string]killFile, writers)
	total := 0
	for w := range writers {
		models[w] = map[string]killFile{}
		if err := os.Mkdir(killDir(m, w), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for round := range rounds {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		ended := make(chan error, writers)
		logs := make([]string, writers)
		for w := range writers {
			logs[w] = filepath.Join(m.dir, fmt.Sprintf("log.%d.%d", round, w))
			cmd := child(ctx, "kill-writer", killDir(m, w), logs[w], strconv.Itoa(round))
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				cancel()
				t.Fatal(err)
			}
			go func() {
				err := cmd.Wait()
				if err != nil {
					err = fmt.Errorf("writer: %w: %s", err, out.String())
				}
				ended <- err
			}()
		}
		time.Sleep(700*time.Millisecond + time.Duration(rng.IntN(1200))*time.Millisecond)
		m.kill9()
		for range writers {
			if err := <-ended; err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		cancel()
		m.fsck()
		m.up()
		acknowledged := 0
		for w := range writers {
			n, err := killVerify(killDir(m, w), logs[w], models[w])
			if err != nil {
				t.Errorf("round %d, writer %d: %v", round, w, err)
			}
			if n == 0 {
				t.Errorf("round %d, writer %d: nothing was acknowledged before the kill", round, w)
			}
			acknowledged += n
		}
		m.again() // unmounts, fsck -n, mounts
		for w := range writers {
			if _, err := killVerify(killDir(m, w), "", models[w]); err != nil {
				t.Errorf("round %d, writer %d, after a clean remount: %v", round, w, err)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
		t.Logf("round %d: %d changes acknowledged", round, acknowledged)
		total += acknowledged
	}
	t.Logf("%d acknowledged changes, none lost", total)
}

func killDir(m *mount, w int) string { return m.path(fmt.Sprintf("w%d", w)) }

// killFile is what a file must have.
type killFile struct {
	size int
	seed uint64
}

// killBytes is the content that a seed stands for, up to size.
func killBytes(seed uint64, size int) []byte {
	b := make([]byte, size)
	x := seed*0x9e3779b97f4a7c15 + 1
	for i := range b {
		if i%8 == 0 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
		}
		b[i] = byte(x >> (i % 8 * 8))
	}
	return b
}

// killWriter changes files in a directory until the mount dies. Arguments:
// directory, log, round.
func killWriter(args []string) error {
	dir, round := args[0], args[2]
	log, err := os.OpenFile(args[1], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	if err := os.Chdir(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(".")
	if err != nil {
		return err
	}
	var names []string
	sizes := map[string]int{}
	seeds := map[string]uint64{}
	for _, e := range entries {
		// What earlier rounds left is renamed and deleted, never appended to.
		names = append(names, e.Name())
		sizes[e.Name()] = -1
	}
	rng := rand.New(rand.NewPCG(uint64(os.Getpid()), 5))
	for n := 0; ; n++ {
		fresh := fmt.Sprintf("r%s-%d", round, n)
		pick := -1
		if len(names) > 0 {
			pick = rng.IntN(len(names))
		}
		var line string
		var do func() error
		var done func()
		drop := func(i int) {
			delete(sizes, names[i])
			delete(seeds, names[i])
			names[i] = names[len(names)-1]
			names = names[:len(names)-1]
		}
		kind := rng.IntN(10)
		switch {
		case pick < 0 || kind < 4 && len(names) < 400:
			size, seed := killSize(rng), rng.Uint64()>>1
			line = fmt.Sprintf("create %s %d %d", fresh, size, seed)
			do = func() error { return killAppend(fresh, os.O_CREATE|os.O_EXCL, killBytes(seed, size), 0) }
			done = func() { names = append(names, fresh); sizes[fresh], seeds[fresh] = size, seed }
		case kind < 6 && sizes[names[pick]] >= 0:
			name := names[pick]
			from, to := sizes[name], sizes[name]+killSize(rng)
			line = fmt.Sprintf("append %s %d %d", name, to, seeds[name])
			do = func() error { return killAppend(name, os.O_APPEND, killBytes(seeds[name], to), from) }
			done = func() { sizes[name] = to }
		case kind < 8:
			from, to := names[pick], fresh
			other := -1
			if kind == 7 && len(names) > 1 { // onto another file
				other = (pick + 1 + rng.IntN(len(names)-1)) % len(names)
				to = names[other]
			}
			line = fmt.Sprintf("rename %s %s", from, to)
			do = func() error { return os.Rename(from, to) }
			done = func() {
				size, seed := sizes[from], seeds[from]
				drop(pick)
				if other < 0 {
					names = append(names, to)
				}
				sizes[to], seeds[to] = size, seed
			}
		default:
			name := names[pick]
			line = "unlink " + name
			do = func() error { return os.Remove(name) }
			done = func() { drop(pick) }
		}
		if _, err := log.WriteString("? " + line + "\n"); err != nil {
			return err
		}
		if err := do(); err != nil {
			if errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.ECONNABORTED) {
				return nil // the daemon is dead, as planned
			}
			return fmt.Errorf("%s: %w", line, err)
		}
		if _, err := log.WriteString("! " + line + "\n"); err != nil {
			return err
		}
		done()
	}
}

// killSize is mostly small and now and then several blocks.
func killSize(rng *rand.Rand) int {
	if rng.IntN(4) == 0 {
		return 1 + rng.IntN(200000)
	}
	return 1 + rng.IntN(9000)
}

// killAppend writes the bytes of a file from the offset to the end, in pieces.
func killAppend(name string, flags int, b []byte, from int) error {
	f, err := os.OpenFile(name, os.O_WRONLY|flags, 0o644)
	if err != nil {
		return err
	}
	for b = b[from:]; len(b) > 0; {
		n, err := f.Write(b[:min(len(b), 30000)])
		if err != nil {
			return errors.Join(err, f.Close())
		}
		b = b[n:]
	}
	return f.Close()
}

// killVerify applies the acknowledged lines of a log to the model, compares it with
// the directory, and makes the model what was found of the change in flight. It
// returns the number of acknowledged changes.
func killVerify(dir, log string, model map[string]killFile) (n int, err error) {
	var flight []string
	if log != "" {
		f, err := os.Open(log)
		if err != nil {
			return 0, err
		}
		defer f.Close()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			fields := strings.Fields(sc.Text())
			if fields[0] == "?" {
				flight = fields[1:]
				continue
			}
			flight = nil
			killApply(model, fields[1:])
			n++
		}
	}
	found := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return n, err
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return n, err
		}
		found[e.Name()] = b
	}
	before := killDiff(model, found, "", 0)
	if before == "" || flight == nil {
		if before != "" {
			return n, errors.New(before)
		}
		return n, nil
	}
	partial, least := "", 0
	if flight[0] == "create" || flight[0] == "append" {
		partial, least = flight[1], model[flight[1]].size
	}
	killApply(model, flight)
	if after := killDiff(model, found, partial, least); after != "" {
		return n, fmt.Errorf("neither without the change in flight (%s): %s\nnor with it: %s", strings.Join(flight, " "), before, after)
	}
	if partial != "" {
		model[partial] = killFile{len(found[partial]), model[partial].seed}
	}
	return n, nil
}

func killApply(model map[string]killFile, op []string) {
	switch op[0] {
	case "create", "append":
		size, _ := strconv.Atoi(op[2])
		seed, _ := strconv.ParseUint(op[3], 10, 64)
		model[op[1]] = killFile{size, seed}
	case "rename":
		model[op[2]] = model[op[1]]
		delete(model, op[1])
	case "unlink":
		delete(model, op[1])
	}
}

// killDiff says how the files found differ from the model; of partial any beginning
// of at least least bytes is right.
func killDiff(model map[string]killFile, found map[string][]byte, partial string, least int) string {
	for name, want := range model {
		b, ok := found[name]
		if !ok {
			return fmt.Sprintf("%s (%d bytes) is missing", name, want.size)
		}
		size := want.size
		if name == partial && len(b) >= least && len(b) <= size {
			size = len(b)
		}
		if len(b) != size {
			return fmt.Sprintf("%s has %d bytes, want %d", name, len(b), size)
		}
		whole := killBytes(want.seed, size)
		for i := range b {
			if b[i] != whole[i] {
				return fmt.Sprintf("%s (%d bytes) differs at byte %d: %d, want %d", name, size, i, b[i], whole[i])
			}
		}
	}
	for name, b := range found {
		if _, ok := model[name]; !ok {
			return fmt.Sprintf("%s (%d bytes) should not be there", name, len(b))
		}
	}
	return ""
}
