package fusefs

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/daxfsd/daxfsd/fs"
)

// kill clears set-user-ID and set-group-ID of a file that a caller without CAP_FSETID is about to
// change (HANDLE_KILLPRIV_V2). It also makes the kernel drop the old mode that it has cached.
func (a *Adapter) kill(c *call, ino uint64) syscall.Errno {
	if e := a.core.GetAttr(&c.ctx, ino, &c.attr); e != 0 {
		return e
	}
	valid := killBits(&c.ctx, &c.attr)
	if fs.KillPriv(c.attr.Mode) == c.attr.Mode && valid&fs.SetKillSGID == 0 {
		return 0
	}
	c.set = fs.SetAttr{Valid: valid}
	e := a.core.SetAttr(&c.ctx, ino, &c.set, &c.attr)
	if e == 0 {
		a.forgetAttr(ino)
	}
	return e
}

// killAsUser is kill for requests that do not contain whether the caller has CAP_FSETID. It treats
// only root as having it.
func (a *Adapter) killAsUser(c *call, ino uint64) syscall.Errno {
	if c.ctx.UID == 0 {
		return 0
	}
	return a.kill(c, ino)
}

// mayKill reports whether kill may have to change a file.
func mayKill(ctx *fs.Caller, at *fs.Attr) bool {
	return fs.KillPriv(at.Mode) != at.Mode || fs.NeedsGroups(at.Mode) && ctx.GID != at.GID
}

// killBits returns the fs.SetKill* flags for a caller without CAP_FSETID. It looks up the caller's
// groups only for a file with set-group-ID and without group execution.
func killBits(ctx *fs.Caller, at *fs.Attr) uint32 {
	if fs.NeedsGroups(at.Mode) && !inGroup(ctx, at.GID) {
		return fs.SetKillPriv | fs.SetKillSGID
	}
	return fs.SetKillPriv
}

// inGroup reports whether a request's caller is in a group. FUSE sends one group and the thread;
// /proc has the other groups. A caller that /proc does not show is in no other group: one in a PID
// namespace that is not below the mount's, one that has exited, or one that acts with other
// credentials than its own.
func inGroup(ctx *fs.Caller, gid uint32) bool {
	if ctx.GID == gid {
		return true
	}
	if ctx.PID == 0 || !procIsOurs() {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", ctx.PID))
	if err != nil {
		return false
	}
	const fsid = 3 // real, effective, saved, filesystem
	uids, gids := statusIDs(b, "Uid:"), statusIDs(b, "Gid:")
	if len(uids) <= fsid || len(gids) <= fsid || uids[fsid] != ctx.UID || gids[fsid] != ctx.GID {
		return false
	}
	return slices.Contains(statusIDs(b, "Groups:"), gid)
}

// statusIDs returns the numbers in a line of /proc/PID/status.
func statusIDs(status []byte, name string) (ids []uint32) {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			for _, w := range bytes.Fields(rest) {
				id, err := strconv.ParseUint(string(w), 10, 32)
				if err != nil {
					return nil
				}
				ids = append(ids, uint32(id))
			}
			return ids
		}
	}
	return nil
}

// procIsOurs reports whether /proc numbers processes as this process's PID namespace does, and so
// as the kernel numbers them in this mount's requests. It does if it shows exactly one PID for this
// process, which is Getpid's.
var procIsOurs = sync.OnceValue(func() bool {
	b, err := os.ReadFile("/proc/self/status")
	return err == nil && slices.Equal(statusIDs(b, "NSpid:"), []uint32{uint32(unix.Getpid())})
})
