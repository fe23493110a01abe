package posix

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	brief = flag.Bool("brief", false, "run only the brief cases: a few of each kind, quick on an emulated machine, too")
	slow  = flag.Int("slow", 1, "factor of all time limits, for slow machines")
)

// caseLimit bounds the time of a case.
func caseLimit() time.Duration { return time.Duration(*slow) * 30 * time.Second }

// A testCase is one row of the table.
type testCase struct {
	name  string
	needs need
	run   func(c *ctx)
	known []known
	slow  bool // the limit is four times as long, and the case's files are not removed
}

// A known is a known difference: the case fails on targets whose name begins with on ("": on all
// targets but controls).
type known struct {
	on, why string
	race    bool // the case may also pass
}

// Differences that several cases have.
var (
	kernelsFlags = []known{{why: "the kernel checks flags of its in-memory inode, which FUSE never sets"}}
	cachedPages  = []known{{on: "dax=never", why: "the daemon does not see requests that the kernel answers from its page cache"},
		{on: "dax=inode", why: "the same, for files without the x flag"}}
)

// cases lists all cases.
var cases = slices.Concat(permCases, permOpCases, suidCases, aclCases, xattrCases, nameCases, linkCases, renameCases, tmpfileCases,
	timeCases, timeChangeCases, spaceCases, trimCases, copyCases, openCases, rwCases, lockCases, mmapCases, readdirCases, handleCases,
	notifyCases, spliceCases, flagCases, specialCases, errnoCases)

func (k known) matches(tg *target) bool { return !tg.control && strings.HasPrefix(tg.name, k.on) }

// TestPosix runs the table on every target.
func TestPosix(t *testing.T) {
	seen := map[string]bool{}
	for _, tc := range cases {
		if seen[tc.name] {
			t.Fatalf("two cases are called %s", tc.name)
		}
		seen[tc.name] = true
	}
	for name := range briefCases {
		if !seen[name] {
			t.Fatalf("no case is called %s, which is marked as brief", name)
		}
	}
	for _, tg := range targets {
		t.Run(tg.name, func(t *testing.T) { tg.runAll(t) })
	}
}

// runAll runs the table on one target and logs a summary.
func (tg *target) runAll(t *testing.T) {
	up := tg.up(t)
	if up == nil {
		return // up has logged why
	}
	var passed, failed, knownN, absent int
	for i, row := range cases {
		if *brief && !briefCases[row.name] {
			continue
		}
		if lacks := row.needs &^ tg.has; lacks != 0 {
			absent++
			t.Logf("%s: not on %s, which has no %v", row.name, tg.name, lacks)
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			start := time.Now()
			errs := row.once(tg, up, filepath.Join(up.dir, fmt.Sprintf("case%03d", i)))
			if took := time.Since(start); took > 5*time.Second {
				t.Logf("took %v", took.Round(time.Millisecond))
			}
			var why string
			var race bool
			for _, difference := range row.known {
				if difference.matches(tg) {
					why, race = difference.why, difference.race
				}
			}
			switch {
			case why == "" && len(errs) == 0:
				passed++
			case why == "":
				failed++
				t.Error(strings.Join(errs, "\n"))
			case len(errs) == 0 && race:
				passed++
				t.Logf("passed this time; known: %s", why)
			case len(errs) == 0:
				failed++
				t.Errorf("passes here, and is known to fail: %s. Take that out of the table", why)
			default:
				knownN++
				t.Logf("known: %s\n%s", why, strings.Join(errs, "\n"))
			}
			if err := up.alive(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Logf("%s: %d of %d cases: %d passed, %d failed, %d known differences, %d not for it", tg.name, passed+failed+knownN+absent, len(cases), passed, failed, knownN, absent)
	if left := held(up.dir); len(left) > 0 {
		t.Errorf("the cases left open: %v", left)
	}
	up.done(t)
}

// held returns the descriptors, mappings and working directories of this process below dir.
func held(dir string) (l []string) {
	names, _ := filepath.Glob("/proc/self/task/*/cwd")
	fds, _ := filepath.Glob("/proc/self/fd/*")
	for _, n := range append(names, fds...) {
		if to, err := os.Readlink(n); err == nil && strings.HasPrefix(to, dir) {
			l = append(l, n+" "+to)
		}
	}
	maps, _ := os.ReadFile("/proc/self/maps")
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, dir) {
			l = append(l, strings.TrimSpace(line))
		}
	}
	return l
}

// once runs a case in a fresh directory and returns its errors.
func (tc *testCase) once(tg *target, up *mounted, dir string) []string {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return []string{err.Error()}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return []string{err.Error()}
	}
	c := &ctx{target: tg, mounted: up, dir: dir}
	limit := caseLimit()
	if tc.slow {
		limit *= 4
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.inThread(func() { tc.run(c) })
		c.cleanup()
	}()
	select {
	case <-done:
		if tc.slow {
			break
		}
		if err := os.RemoveAll(dir); err != nil {
			c.errorf("removing what the case left: %v", err)
		}
	case <-time.After(limit):
		buf := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "%s on %s hangs:\n%s\n", tc.name, tg.name, buf[:runtime.Stack(buf, true)])
		c.errorf("not done after %v", limit)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.errs)
}

// A ctx is one run of one case.
type ctx struct {
	target  *target
	mounted *mounted
	dir     string // absolute path; the working directory of the case's threads

	mu    sync.Mutex
	errs  []string // protected by mu
	fds   []int    // protected by mu; closed at the end
	after []func() // protected by mu; called at the end, last first
}

// giveUp is the panic value that ends a case from any of its threads.
type giveUp struct{}

// inThread runs f on a new OS thread with a working directory and a umask of its own, and throws
// the thread away. It returns when f has returned.
func (c *ctx) inThread(f func()) {
	done := make(chan any)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer func() { done <- recover() }()
		c.do(unix.Unshare(unix.CLONE_FS))
		c.do(unix.Chdir(c.dir))
		unix.Umask(0)
		defer func() { _ = unix.Chdir("/") }() // the first thread of a process outlives its goroutine
		f()
	}()
	if r := <-done; r != nil {
		if _, ok := r.(giveUp); !ok {
			c.errorf("panic: %v", r)
		}
	}
}

// A who is a user with supplementary groups.
type who struct {
	uid, gid int
	groups   []int
}

// as runs f as another user, in the same directory, and reports whether f ran to its end.
func (c *ctx) as(w who, f func()) (whole bool) {
	c.inThread(func() {
		c.do(become(w.uid, w))
		f()
		whole = true
	})
	return whole
}

func (c *ctx) cleanup() {
	c.mu.Lock()
	fds, after := c.fds, c.after
	c.fds, c.after = nil, nil
	c.mu.Unlock()
	for _, f := range slices.Backward(after) {
		f()
	}
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// atEnd registers f to be called when the case has ended.
func (c *ctx) atEnd(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.after = append(c.after, f)
}

// errorf records an error and continues.
func (c *ctx) errorf(format string, args ...any) {
	where := ""
	for skip := 1; skip < 12; skip++ { // the innermost caller outside the helpers
		_, file, line, ok := runtime.Caller(skip)
		if !ok {
			break
		}
		if base := filepath.Base(file); base != "table_test.go" && base != "calls_test.go" && strings.HasSuffix(base, "_test.go") {
			where = fmt.Sprintf("%s:%d: ", base, line)
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, where+fmt.Sprintf(format, args...))
}

// fatalf records an error and ends the case.
func (c *ctx) fatalf(format string, args ...any) {
	c.errorf(format, args...)
	panic(giveUp{})
}

// do ends the case if err is not nil.
func (c *ctx) do(err error) {
	if err != nil {
		c.fatalf("%v", err)
	}
}

// is requires that err is want; nil means success.
func (c *ctx) is(err, want error, what string, args ...any) {
	if want == nil && err != nil || want != nil && !errors.Is(err, want) {
		c.errorf("%s: got %s, want %s", fmt.Sprintf(what, args...), errName(err), errName(want))
	}
}

// oneOf requires one of the wanted errors, where POSIX allows several.
func (c *ctx) oneOf(err error, what string, wants ...unix.Errno) {
	for _, w := range wants { // 0: success
		if errors.Is(err, w) || w == 0 && err == nil {
			return
		}
	}
	c.errorf("%s: got %s, want one of %v", what, errName(err), wants)
}

// eq requires that two values are equal.
func eq[T comparable](c *ctx, got, want T, what string, args ...any) {
	if got != want {
		c.errorf("%s: got %v, want %v", fmt.Sprintf(what, args...), got, want)
	}
}

// oct is eq for file modes, and prints them in octal.
func (c *ctx) oct(got, want uint32, what string, args ...any) {
	if got != want {
		c.errorf("%s: mode %04o, want %04o", fmt.Sprintf(what, args...), got, want)
	}
}

// true requires ok.
func (c *ctx) true(ok bool, what string, args ...any) {
	if !ok {
		c.errorf("not so: "+what, args...)
	}
}

func errName(err error) string {
	var e unix.Errno
	switch {
	case err == nil:
		return "success"
	case errors.As(err, &e):
		return unix.ErrnoName(e)
	}
	return err.Error()
}
