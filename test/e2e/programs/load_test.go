package programs

import (
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/daxfsd/daxfsd/test/harness"
)

// TestDbench replays the load of file servers, by several clients, with and without extended
// attributes and fsync.
func TestDbench(t *testing.T) {
	harness.Need(t, "dbench", "mkfs.ext4", "mount")
	m := harness.New(t, 2<<30, choose(3*time.Minute, 10*time.Minute))
	c := newControl(t, m, 2<<30)
	runs := [][]string{{"4"}}
	if *long {
		runs = append(runs, []string{"--xattr", "4"}, []string{"--fsync", "4"}, []string{"--sync-dir", "--sync", "4"}, []string{"32"})
	}
	throughput := regexp.MustCompile(`Throughput ([\d.]+) MB/sec`)
	wrong := regexp.MustCompile(`(?mi)^.*(?:error|failed|not found|mismatch).*$`)
	for i, run := range runs {
		bench := func(dir string) string {
			t.Helper()
			dir = filepath.Join(dir, fmt.Sprint("dbench", i))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			seconds := choose(4, 30)
			args := append([]string{"-c", "/usr/share/dbench/client.txt", "-t", strconv.Itoa(seconds), "-D", dir}, run...)
			out := harness.Run(t, time.Duration(seconds)*time.Second+time.Minute, dir, nil, "dbench", args...)
			got := throughput.FindStringSubmatch(out)
			// Clients work without the semaphore, which another dbench on the machine may hold.
			if bad := wrong.FindString(strings.ReplaceAll(out, "failed to create barrier semaphore", "")); bad != "" || got == nil {
				t.Fatalf("dbench %s: %s\n%s", strings.Join(run, " "), bad, out)
			}
			harness.Run(t, time.Minute, "", nil, "rm", "-r", dir)
			return got[1]
		}
		theirs := bench(c.Dir)
		t.Logf("dbench %-22s %s MB/s, on %s %s MB/s", strings.Join(run, " "), bench(m.Mountpoint), c.Kind, theirs)
	}
	empty(t, m)
}

// TestBonnie writes, rewrites and reads a file by characters and blocks, seeks in it, and creates,
// looks up and deletes files in order and at random. bonnie++ checks what it reads.
func TestBonnie(t *testing.T) {
	harness.Need(t, "bonnie++", "mkfs.ext4", "mount")
	m := harness.New(t, 1<<30, choose(3*time.Minute, 15*time.Minute))
	c := newControl(t, m, 1<<30)
	// -s and -r: MiB of the file and of the memory that bonnie++ assumes; -n: thousands of files,
	// bytes of the largest and the smallest, directories. Without -f it also writes and reads
	// single bytes, each of which is a request to the daemon: 4 MiB are eight million requests.
	options := choose([]string{"-f", "-s", "128", "-r", "16", "-n", "1:20000:0:8"}, []string{"-s", "4", "-r", "2", "-n", "8:50000:0:16"})
	options = append(options, "-q", "-u", "root", "-m", "daxfsd")
	bench := func(dir string) string {
		t.Helper()
		start := time.Now()
		out := harness.Run(t, choose(80*time.Second, 10*time.Minute), dir, nil, "bonnie++", append(options, "-d", dir)...)
		took := round(time.Since(start))
		line := out[strings.LastIndexByte(strings.TrimSpace(out), '\n')+1:]
		f, err := csv.NewReader(strings.NewReader(line)).Read()
		if err != nil || len(f) < 40 || f[2] != "daxfsd" {
			t.Fatalf("bonnie++ prints no result: %v\n%s", err, out)
		}
		// bon_csv2txt(1): 1.98 version, engine, machine, concurrency, seed, size, chunk, ...
		return fmt.Sprintf("%v; KiB/s: write %s, rewrite %s, read %s; random seeks/s: %s", took, f[11], f[13], f[17], f[19])
	}
	t.Logf("%s: %s", c.Kind, bench(c.Dir))
	t.Logf("daxfsd: %s", bench(m.Mountpoint))
	empty(t, m)
}

// empty remounts a mount from which a test has deleted everything, and requires that it is empty.
func empty(t *testing.T, m *harness.Mount) {
	t.Helper()
	m.Alive()
	m.Again()
	if st := m.Stats(); st.Inodes != 1 {
		t.Errorf("everything is deleted, and there are %d inodes", st.Inodes)
	}
}
