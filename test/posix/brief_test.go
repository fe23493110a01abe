package posix

import "strings"

// briefCases is the set of cases that -brief runs: some of each file of cases, of those that make
// few calls. On an emulated machine they take about ten seconds; all cases take a quarter of an
// hour.
var briefCases = func() map[string]bool {
	m := map[string]bool{}
	for _, name := range strings.Fields(briefNames) {
		m[name] = true
	}
	return m
}()

const briefNames = `
acl/changes-ctime-only acl/chown-keeps acl/einval acl/inherited-minimal acl/many-entries acl/remove-none
acl/set-clears-setgid-of-non-member acl/survives-rename-and-link acl/two-groups-do-not-add-up acl/who-may
copy/errno
flag/immutable-access flag/immutable-utimes-now
handle/errno handle/of-open-unlinked handle/other-type
link/hard link/unlinked-by-one-of-many
lock/flock lock/leases lock/of-unlinked lock/ofd lock/posix-errno lock/posix-of-one-process
mmap/closed-descriptor mmap/errno mmap/exec-mapping mmap/of-unlinked mmap/private mmap/punched-under-a-mapping
mmap/sync-flag-is-refused-or-works mmap/tail-of-the-last-page mmap/write-from-a-mapping-of-the-same-file
name/255-bytes name/case-and-normal-forms-differ name/errno/chdir name/errno/chmod name/errno/getxattr
name/errno/inotify_add_watch name/errno/link-from name/errno/link-to name/errno/listxattr name/errno/mkfifo
name/errno/mknod name/errno/name_to_handle_at name/errno/readlink name/errno/setxattr name/errno/symlink
name/errno/tmpfile name/errno/truncate name/in-a-deleted-directory name/mountpoint
notify/file notify/of-another-process
open/direct open/openat2 open/setfl open/sync-flags
perm/access-uses-the-real-user perm/chmod-sticky-of-file perm/chown-ids-of-32-bits
perm/create-without-permission-to-write perm/lchmod perm/mknod-of-devices perm/noatime-who
perm/protected-hard-links-are-the-kernels perm/revoked-while-open perm/root-passes perm/sticky perm/times-who
readdir/types-and-inodes
rename/flags
rw/efault rw/fadvise-and-readahead rw/preadv2-flags rw/shared-offset rw/short-at-the-end rw/vectors
space/efbig space/fallocate-keep-size space/lseek space/statfs space/statfs-sums
space/truncate-frees-what-lies-behind
special/device special/fifo special/socket
splice/to-and-from-a-pipe splice/what-was-spliced-does-not-change
suid/chown-by-root suid/chown-of-nothing suid/cleared-by-ftruncate-to-larger suid/cleared-by-pwrite
suid/kept-by-read-and-metadata
time/btime time/change/ftruncate time/symlink
tmpfile/errno tmpfile/excl
xattr/create-and-replace-together xattr/create-replace xattr/erange-and-size xattr/names xattr/of-unlinked
xattr/two-names-one-file xattr/unknown-namespace-read
`
