package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// preloadName is the file name of the library that run loads into programs.
const preloadName = "libdaxfsd-preload.so"

func runCommand() *cobra.Command {
	verbose := false
	c := &cobra.Command{
		Use:   "run [--verbose] -- COMMAND [ARGUMENT...]",
		Short: "Run a program with direct access to the memory of files",
		Long: `Run a program so that it reads, writes and maps files on daxfsd mounts directly: by
copies from and to the region, without requests to the daemon. The program needs no
change. It must be allowed to open the region, and its files on the mount must not be
cached by the kernel (dax=always, the default of a mount).

It works by a library that is loaded into the program (LD_PRELOAD). So it does not work
for statically linked programs, nor for programs that run with the privileges of another
user. Whatever the mount does not grant works the normal way; --verbose says why, once
for each file.

The program takes the place of daxfsd: it has the same process number, gets its signals,
and its exit code is the program's.`,
		Example: `  daxfsd run -- fio --name=x --filename=/mnt/x --size=1g --rw=randread --ioengine=psync
  daxfsd run --verbose -- python3 train.py`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return runProgram(args, verbose)
		},
	}
	c.Flags().BoolVar(&verbose, "verbose", false, "say why a file is served the normal way")
	c.Flags().SetInterspersed(false)
	return c
}

// runProgram replaces the process by the program. It returns only if that is not possible.
func runProgram(args []string, verbose bool) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		return &exitError{127, fmt.Errorf("cannot run %s: %w", args[0], err)}
	}
	if err := preloadable(path, 0); err != nil {
		return &exitError{126, fmt.Errorf("cannot run %s directly: %w", path, err)}
	}
	lib, err := findPreload()
	if err != nil {
		return err
	}
	env := os.Environ()
	if old := os.Getenv("LD_PRELOAD"); old != "" {
		lib += ":" + old
	}
	env = append(env, "LD_PRELOAD="+lib)
	if verbose {
		env = append(env, "DAXFSD_VERBOSE=1")
	}
	err = unix.Exec(path, args, lastOfEach(env))
	return &exitError{126, fmt.Errorf("cannot run %s: %w", path, err)}
}

// lastOfEach returns environment variables of which each name occurs once, the last one.
func lastOfEach(env []string) (unique []string) {
	at := map[string]int{}
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		if i, ok := at[name]; ok {
			unique[i] = v
			continue
		}
		at[name] = len(unique)
		unique = append(unique, v)
	}
	return unique
}

// findPreload returns the path of the library: beside this program, as make build leaves it, or
// where make install puts it.
func findPreload() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(self)
	places := []string{dir, filepath.Join(dir, "../lib"), "/usr/local/lib", "/usr/lib"}
	for _, p := range places {
		if path := filepath.Join(p, preloadName); unix.Access(path, unix.R_OK) == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not there: looked in %s; `make install` installs it where there is a C compiler", preloadName, strings.Join(places, ", "))
}

// scriptDepth is how many interpreters the kernel follows.
const scriptDepth = 5

// preloadable returns an error if the dynamic linker would not load a library into the program at
// path, or into the interpreter of the script there.
func preloadable(path string, depth int) error {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrPermission) { // it may be executable all the same: let the kernel decide
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	n, _ := unix.Getxattr(path, "security.capability", nil)
	if st.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 && os.Geteuid() != 0 || n > 0 {
		return fmt.Errorf("%s runs with privileges of its own, and the linker loads no library into it: run it without daxfsd run, or a copy of it without the privileges", path)
	}
	head := make([]byte, 256)
	n, _ = io.ReadFull(f, head)
	if line, ok := strings.CutPrefix(string(head[:max(n, 0)]), "#!"); ok && depth < scriptDepth {
		line, _, _ = strings.Cut(line, "\n")
		words := strings.Fields(line)
		if len(words) == 0 {
			return nil
		}
		interpreter := words[0]
		if filepath.Base(interpreter) == "env" && len(words) > 1 && !strings.HasPrefix(words[1], "-") {
			if found, err := exec.LookPath(words[1]); err == nil {
				interpreter = found
			}
		}
		return preloadable(interpreter, depth+1)
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return nil // no program: the kernel says so
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			return nil
		}
	}
	return fmt.Errorf("%s is statically linked, and no library can be loaded into it: Go programs use the package direct, others libdaxfsd", path)
}
