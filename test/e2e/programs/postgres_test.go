package programs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
)

// A postgres is a PostgreSQL cluster whose data is on a mount, and its server while it runs:
//
//	stopped -> running  start
//	running -> stopped  stop, which waits; kill, which is a crash; the end of the test
type postgres struct {
	t      *testing.T
	bin    string // directory of the programs
	data   string
	socket string // directory
	log    string

	server *exec.Cmd // nil: stopped
	done   chan error
}

// newPostgres makes a cluster in dir, for the user postgres, since the server refuses to run as
// root.
func newPostgres(t *testing.T, mount *harness.Mount, dir string) *postgres {
	t.Helper()
	harness.Need(t, "setpriv")
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pg_amcheck")
	if len(found) == 0 {
		t.Fatal("PostgreSQL is missing: run `make deps-programs`, which installs it")
	}
	cluster := &postgres{t: t, bin: filepath.Dir(found[len(found)-1]), data: filepath.Join(dir, "data"),
		socket: filepath.Join(mount.Dir, "socket"), log: filepath.Join(mount.Dir, "postgres.log")}
	for _, parent := range []string{filepath.Dir(mount.Dir), mount.Dir} { // only root may search them otherwise
		if err := os.Chmod(parent, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	for _, own := range []string{cluster.data, cluster.socket} {
		if err := os.Mkdir(own, 0o700); err != nil {
			t.Fatal(err)
		}
		harness.Run(t, time.Minute, "", nil, "chown", "postgres:postgres", own)
	}
	t.Cleanup(func() {
		cluster.end()
		if t.Failed() {
			logged, _ := os.ReadFile(cluster.log)
			t.Logf("the server's log:\n%s", logged[max(0, len(logged)-8<<10):])
		}
	})
	cluster.run(2*time.Minute, "initdb", "--data-checksums", "--auth=trust", "--no-locale", "--encoding=UTF8", "-D", cluster.data)
	// Everything that it shares and writes must be on the mount: its shared memory segments are
	// files there, so that nothing is left in /dev/shm after a kill.
	conf := "listen_addresses = ''\nunix_socket_directories = '" + cluster.socket + "'\nport = 5432\n" +
		"dynamic_shared_memory_type = mmap\nmin_dynamic_shared_memory = 1MB\nshared_buffers = 16MB\nmax_wal_size = 64MB\ncheckpoint_timeout = 30s\n" +
		"full_page_writes = on\nfsync = on\nsynchronous_commit = on\nautovacuum_naptime = 5s\n"
	confFile, err := os.OpenFile(filepath.Join(cluster.data, "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err == nil {
		_, err = confFile.WriteString(conf)
		confFile.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cluster
}

// as returns a command line that runs a program as the user postgres. setpriv executes the program,
// so the pid is the same.
func (p *postgres) as(program string, args ...string) (string, []string) {
	return "setpriv", append([]string{"--reuid=postgres", "--regid=postgres", "--init-groups", filepath.Join(p.bin, program)}, args...)
}

var postgresEnv = []string{"PGHOST=", "PGPORT=5432", "PGDATABASE=postgres", "PGUSER=postgres", "HOME=/nonexistent", "LC_ALL=C"}

func (p *postgres) env() []string { return append(postgresEnv, "PGHOST="+p.socket) }

// run runs one of PostgreSQL's programs.
func (p *postgres) run(limit time.Duration, program string, args ...string) string {
	p.t.Helper()
	name, args := p.as(program, args...)
	return harness.Run(p.t, limit, p.socket, p.env(), name, args...)
}

// sql executes a statement that returns one value.
func (p *postgres) sql(statement string) string {
	p.t.Helper()
	return strings.TrimSpace(p.run(time.Minute, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement))
}

// start starts the server and waits until it answers.
func (p *postgres) start() time.Duration {
	p.t.Helper()
	start := time.Now()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	name, args := p.as("postgres", "-D", p.data)
	p.server = exec.Command(name, args...)
	p.server.Dir, p.server.Env = p.socket, append(os.Environ(), p.env()...)
	p.server.Stdout, p.server.Stderr = log, log
	// A process group of its own, which gets no signals from the terminal.
	p.server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.server.Start(); err != nil {
		p.server = nil
		p.t.Fatal(err)
	}
	p.done = make(chan error, 1)
	go func(c *exec.Cmd, done chan error) { done <- c.Wait() }(p.server, p.done)
	name, args = p.as("pg_isready", "-q")
	for time.Since(start) < 90*time.Second {
		if _, err := harness.Command(10*time.Second, p.socket, p.env(), name, args...); err == nil {
			return time.Since(start)
		}
		select {
		case err := <-p.done:
			p.server = nil
			p.t.Fatalf("the server ended while it started: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	p.t.Fatalf("the server does not answer after %v", time.Since(start))
	return 0
}

// stop shuts the server down, which writes a checkpoint.
func (p *postgres) stop() {
	p.t.Helper()
	_ = p.server.Process.Signal(syscall.SIGINT)
	select {
	case err := <-p.done:
		p.server = nil
		if err != nil {
			p.t.Fatalf("the server's shutdown: %v", err)
		}
	case <-time.After(time.Minute):
		p.t.Fatal("the server is still shutting down after a minute")
	}
}

// kill kills all processes of the server at once, as a crash would. It first stops the process that
// starts others, so that none is missed. It holds a pidfd of each, so that it cannot hit another
// process. It returns the number of processes.
func (p *postgres) kill() (n int) {
	if p.server == nil {
		return 0
	}
	_ = p.server.Process.Signal(syscall.SIGSTOP)
	var fds []int
	pid := p.server.Process.Pid
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, c := range strings.Fields(string(children)) {
		if child, err := strconv.Atoi(c); err == nil {
			if fd, err := unix.PidfdOpen(child, 0); err == nil {
				fds = append(fds, fd)
			}
		}
	}
	_ = p.server.Process.Kill()
	for _, fd := range fds {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		p.t.Error("30 s after SIGKILL the server is still there")
	}
	p.server = nil
	for _, fd := range fds {
		// A pidfd is readable once its process has ended.
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 30000); n == 0 && err == nil {
			p.t.Error("30 s after SIGKILL a process of the server is still there")
		}
		unix.Close(fd)
	}
	return 1 + len(fds)
}

// end stops the server at the end of the test, by a signal that asks it to and then by SIGKILL.
func (p *postgres) end() {
	if p.server == nil {
		return
	}
	_ = p.server.Process.Signal(syscall.SIGINT)
	select {
	case <-p.done:
		p.server = nil
	case <-time.After(15 * time.Second):
		p.kill()
	}
}

var tps = regexp.MustCompile(`tps = ([\d.]+) \(without`)

// bench runs pgbench and returns transactions per second.
func (p *postgres) bench(seconds int, more ...string) string {
	p.t.Helper()
	out := p.run(time.Duration(seconds)*time.Second+90*time.Second, "pgbench", append([]string{"-n", "-c", "4", "-j", "2", "-T", strconv.Itoa(seconds)}, more...)...)
	got := tps.FindStringSubmatch(out)
	if got == nil || !strings.Contains(out, "number of failed transactions: 0 ") {
		p.t.Fatalf("pgbench: %s", out)
	}
	return got[1]
}

// crash calls how after the given time while pgbench works, and returns how many transactions were
// known to be committed by then.
func (p *postgres) crash(after time.Duration, how func()) int {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	name, args := p.as("pgbench", "-n", "-c", "4", "-j", "2", "-T", "50")
	load := exec.CommandContext(ctx, name, args...)
	load.Dir, load.Env = p.socket, append(os.Environ(), p.env()...)
	load.WaitDelay = 5 * time.Second
	if err := load.Start(); err != nil {
		p.t.Fatal(err)
	}
	defer func() { // pgbench ends by itself when its connections end
		cancel()
		_ = load.Wait()
	}()
	time.Sleep(after)
	n, err := strconv.Atoi(p.sql("SELECT count(*) FROM pgbench_history"))
	if err != nil {
		p.t.Fatal(err)
	}
	how()
	return n
}

// check requires that the database is one that the transactions so far can have left: the sums
// agree, at least atLeast transactions are there, and every page, table and index is valid.
func (p *postgres) check(when string, atLeast int) int {
	p.t.Helper()
	sums := p.sql(`SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(tbalance) FROM pgbench_tellers),
		(SELECT sum(bbalance) FROM pgbench_branches), (SELECT coalesce(sum(delta),0) FROM pgbench_history), (SELECT count(*) FROM pgbench_history)`)
	f := strings.Split(sums, "|")
	if len(f) != 5 || f[0] != f[1] || f[1] != f[2] || f[2] != f[3] {
		p.t.Fatalf("%s: the sums of accounts, tellers, branches and history differ: %s", when, sums)
	}
	n, _ := strconv.Atoi(f[4])
	if n < atLeast {
		p.t.Fatalf("%s: %d transactions, and %d were committed", when, n, atLeast)
	}
	p.run(3*time.Minute, "pg_amcheck", "--install-missing", "--heapallindexed", "--parent-check", "-d", "postgres")
	return n
}

// TestPostgres runs PostgreSQL on a mount, kills the server, and kills the daemon under it. After
// each kill no committed transaction may be missing and nothing may be damaged.
func TestPostgres(t *testing.T) {
	m := harness.New(t, 2<<30, choose(4*time.Minute, 20*time.Minute))
	p := newPostgres(t, m, m.Mountpoint)
	took := p.start()
	start := time.Now()
	p.run(2*time.Minute, "pgbench", "-i", "-q", "-s", "5")
	t.Logf("start %v, pgbench -i -s 5 %v", round(took), round(time.Since(start)))
	seconds := choose(15, 60)
	t.Logf("pgbench: %s transactions/s", p.bench(seconds))
	p.check("after pgbench", 1)
	for range choose(1, 10) {
		var killed int
		known := p.crash(choose(2*time.Second, 5*time.Second), func() { killed = p.kill() })
		took = p.start()
		t.Logf("kill -9 of %d processes; recovered in %v; %d transactions, %d were known", killed, round(took), p.check("after kill -9", known), known)
	}
	for range choose(1, 10) {
		known := p.crash(choose(2*time.Second, 5*time.Second), m.Kill9)
		p.kill()
		m.Up()
		took = p.start()
		t.Logf("kill -9 of the daemon; recovered in %v; %d transactions, %d were known", round(took), p.check("after kill -9 of the daemon", known), known)
	}
	t.Logf("pgbench again: %s transactions/s", p.bench(choose(4, 30)))
	p.check("after pgbench again", 1)
	p.run(2*time.Minute, "vacuumdb", "--full", "--analyze", "-a", "-q")
	p.sql("REINDEX DATABASE postgres")
	p.check("after VACUUM FULL", 1)
	before := p.sql("SELECT sum(hashtext(t::text)::bigint) FROM pgbench_accounts t")
	p.stop()
	m.Again()
	p.run(2*time.Minute, "pg_checksums", "--check", "-D", p.data)
	p.start()
	if after := p.sql("SELECT sum(hashtext(t::text)::bigint) FROM pgbench_accounts t"); after != before {
		t.Errorf("after a remount the accounts' hash is %s, before %s", after, before)
	}
	p.stop()
	harness.Run(t, time.Minute, "", nil, "rm", "-r", p.data)
	empty(t, m)
}
