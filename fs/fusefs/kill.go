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

// kill takes set-user-ID and set-group-ID from a file about to be changed by
// somebody without CAP_FSETID (HANDLE_KILLPRIV_V2). The kernel keeps the old mode
// in its inode until it is told.
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

// killAsUser is kill for requests that do not say whether the caller has CAP_FSETID.
func (a *Adapter) killAsUser(c *call, ino uint64) syscall.Errno {
	if c.ctx.UID == 0 {
		return 0
	}
	return a.kill(c, ino)
}

// mayKill reports whether kill may have something to do for a file.
func mayKill(ctx *fs.Caller, at *fs.Attr) bool {
	return fs.KillPriv(at.Mode) != at.Mode || fs.NeedsGroups(at.Mode) && ctx.GID != at.GID
}

// killBits are the fs.SetKill* of a caller without CAP_FSETID. Only for a file with set-group-ID
// that its group may not execute the caller's groups are asked for.
func killBits(ctx *fs.Caller, at *fs.Attr) uint32 {
	if fs.NeedsGroups(at.Mode) && !inGroup(ctx, at.GID) {
		return fs.SetKillPriv | fs.SetKillSGID
	}
	return fs.SetKillPriv
}

// inGroup reports whether a request's caller is in a group. FUSE tells one group and the thread,
// and /proc the others. A caller that cannot be seen there is in none: one in a PID namespace that
// is not below the mount's, one that is gone, or one that acts with other credentials than its own.
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

// statusIDs are the numbers of a line of /proc/PID/status.
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

// procIsOurs reports whether /proc counts processes as this process does, and with it the kernel in
// the requests of our mount: it shows of this process one number, in our own PID namespace.
var procIsOurs = sync.OnceValue(func() bool {
	b, err := os.ReadFile("/proc/self/status")
	return err == nil && slices.Equal(statusIDs(b, "NSpid:"), []uint32{uint32(unix.Getpid())})
})
