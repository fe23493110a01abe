package main

import (
	"bufio"
	"os/exec"
	"syscall"
	"testing"
)

// TestEndingByUser checks that a process that has the name of an ending daemon is believed if it
// belongs to this user or to root. Otherwise another user could keep a region from being mounted
// for a minute.
func TestEndingByUser(t *testing.T) {
	needRoot(t)
	for uid, want := range map[uint32]bool{0: true, 65534: false} {
		c := exec.Command("/bin/sh", "-c", `printf %s "$1" >/proc/$$/comm && echo ready && read line`, "sh", endingName)
		c.Dir = "/"
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
		in, err := c.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			t.Errorf("user %d: %q, error %v", uid, line, err)
		}
		if got := ending(c.Process.Pid); got != want {
			t.Errorf("a process of user %d: ending is %v, want %v", uid, got, want)
		}
		in.Close()
		_ = c.Wait()
	}
	if name, uid := parseStatus("Name:\tdaxfsd\nState:\tS (sleeping)\nUid:\t1\t2\t3\t4\n"); name != "daxfsd" || uid != 2 {
		t.Errorf("%q of user %d, want daxfsd of user 2", name, uid)
	}
	if _, uid := parseStatus("Name:\tx\n"); uid != -1 {
		t.Errorf("user %d, want none", uid)
	}
	if ending(0) {
		t.Error("a process that is not known is ending")
	}
}
