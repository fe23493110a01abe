package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/test/harness"
	"github.com/daxfsd/daxfsd/test/oracle"
)

// TestCut is the guest's part of a round of the power cut. It checks the files that the last round
// left, and works until the guest is killed. Its input from the host:
//
//	DAXFSD_CUT_ROUND   0: there is no filesystem yet
//	DAXFSD_CUT_LAST    not empty: only check
//	DAXFSD_CUT_SEED    seed of the workers' calls
//	DAXFSD_CUT_STORED  number of the last store of the storer (store) that the host knows of
//	/job/tree.W       the tree that worker W must have
//	/job/flight.W     the call that was not acknowledged, if there was one
//
// Its output is on port 3 + W: first the outcome of that call, then the worker's log. The storer's
// log is on the port after those.
func TestCut(t *testing.T) {
	const region = "/dev/dax0.0"
	round, err := strconv.Atoi(os.Getenv("DAXFSD_CUT_ROUND"))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := strconv.ParseInt(os.Getenv("DAXFSD_CUT_STORED"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	options := "transport=dev"
	if round%2 == 1 {
		options = "transport=uring"
		harness.Uring(t)
	}
	var mount *harness.Mount
	if round == 0 {
		devdax(t, 2*mib)
		t.Setenv(harness.RegionEnv, region)
		mount = harness.NewWith(t, options, 0, limit)
		for _, dir := range []string{oracle.Shared, oracle.WorkerDir(0), oracle.WorkerDir(1), oracle.WorkerDir(2), oracle.WorkerDir(3)} {
			if err := os.Mkdir(mount.Path(dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	} else {
		mount = harness.Existing(t, region, options, limit)
		if mount.Fsck().Clean {
			t.Error("the power was cut, and fsck says that it was unmounted")
		}
		mount.Up()
	}
	checkStored(t, mount, stored)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var cmds [oracle.Workers + 1]*exec.Cmd
	var out [oracle.Workers + 1]bytes.Buffer
	for worker := range oracle.Workers {
		port := fmt.Sprint("/dev/vport0p", 3+worker)
		state, err := decide(mount, worker, port)
		if err != nil {
			t.Errorf("worker %d: %v", worker, err)
			continue
		}
		cmds[worker] = harness.Child(ctx, "work", mount.Mountpoint, strconv.Itoa(worker), state, port,
			os.Getenv("DAXFSD_CUT_SEED"), strconv.Itoa(round), "0")
	}
	cmds[oracle.Workers] = harness.Child(ctx, "store", mount.Mountpoint, fmt.Sprint("/dev/vport0p", 3+oracle.Workers), strconv.FormatInt(stored+1, 10))
	if os.Getenv("DAXFSD_CUT_LAST") != "" || t.Failed() {
		mount.Down()
		return
	}
	for worker, cmd := range cmds {
		cmd.Stdout, cmd.Stderr = &out[worker], &out[worker]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for worker := range cmds {
		t.Errorf("worker %d ended, which only the power cut may do: %v: %s", worker, cmds[worker].Wait(), out[worker].Bytes())
	}
}

// decide compares worker w's files with its tree, writes the outcome of the call in flight to the
// port, and returns a file with the present tree. A file with parts of old and new data is
// truncated to 0 bytes, so that the host knows its content again.
func decide(mount *harness.Mount, worker int, port string) (state string, err error) {
	tree, err := oracle.Load(fmt.Sprint("/job/tree.", worker))
	if err != nil {
		return "", err
	}
	var flight *oracle.Op
	if line, err := os.ReadFile(fmt.Sprint("/job/flight.", worker)); err == nil {
		flight = &oracle.Op{}
		if err := json.Unmarshal(line, flight); err != nil {
			return "", err
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	outcome, err := tree.Judge(mount.Mountpoint, worker, flight)
	if err != nil {
		return "", err
	}
	log, err := oracle.OpenLog(port)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if err := log.Say("= %s", outcome); err != nil {
		return "", err
	}
	if outcome == oracle.Part {
		truncate := oracle.Op{Kind: "truncate", A: flight.Target()}
		if err := log.Calling(truncate); err != nil {
			return "", err
		}
		if err := unix.Truncate(mount.Path(truncate.A), 0); err != nil {
			return "", err
		}
		if err := log.Returned(truncate, 0); err != nil {
			return "", err
		}
		tree.Apply(truncate, 0)
	}
	state = fmt.Sprint("/tmp/tree.", worker)
	return state, tree.Save(state)
}
