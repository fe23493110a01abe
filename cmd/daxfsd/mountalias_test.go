package main

import (
	"slices"
	"testing"
)

func TestHelperArgs(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{[]string{"daxfsd", "umount", "/m"}, nil},
		{[]string{"/sbin/mount.fuse.daxfsd", "/r", "/m", "-sn", "-o", "rw,noatime,user,x-y=z"}, []string{"mount", "/r", "/m", "-o", "rw,noatime"}},
		{[]string{"/sbin/mount.daxfsd", "/r", "/m", "-t", "fuse.daxfsd", "-v"}, []string{"mount", "/r", "/m"}},
		{[]string{"/sbin/umount.fuse.daxfsd", "/m"}, []string{"umount", "/m"}},
		{[]string{"/sbin/umount.daxfsd", "/m", "-n", "-l", "-t", "fuse.daxfsd"}, []string{"umount", "/m", "--lazy"}},
		{[]string{"umount.fuse.daxfsd", "/m", "-fv", "-r", "-N", "/proc/1/ns/mnt"}, []string{"umount", "/m", "--force"}},
		{[]string{"umountain.daxfsd", "/m"}, nil},
	} {
		if got, ok := helperArgs(c.in); !slices.Equal(got, c.want) || ok != (c.want != nil) {
			t.Errorf("%q: %q, %v, want %q", c.in, got, ok, c.want)
		}
	}
	if got, ok := helperArgs([]string{"mount.daxfsd", "/r", "/m", "-f"}); got != nil || !ok {
		t.Errorf("fake: %q, %v", got, ok)
	}
}

// helpers is the part of a script that puts the links of make install into /sbin, and nothing else.
const helpers = `
mkdir -p /run/mount; mount -t tmpfs none /run/mount
mount -t tmpfs none "$(readlink -f /sbin)"
for n in mount.daxfsd mount.fuse.daxfsd umount.daxfsd umount.fuse.daxfsd; do ln -s "$0" "/sbin/$n"; done
`

// TestUmountHelper checks that after umount(8) the region is free and clean: it can be mounted,
// copied and checked at once.
func TestUmountHelper(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	region, mp, rounds := newRegion(t), mountPoint(t), "6"
	if testing.Short() {
		rounds = "1"
	}
	scripted(t, helpers+`
for i in $(seq $3); do
	mount -t daxfsd "$region" "$mp"
	echo $i >"$mp/f"
	umount "$mp"
	cp --sparse=always "$region" "$region-copy"
	"$0" info --json "$region-copy" | grep -q '"state": "clean"' || fail "round $i: a copy is not clean"
	mount -t fuse.daxfsd "$region" "$mp" && [ "$(cat "$mp/f")" = $i ] || fail "round $i: it cannot be mounted again"
	umount "$mp" && "$0" fsck -n "$region" >/dev/null || fail "round $i: it cannot be checked"
done
mount -t daxfsd "$region" "$mp"; p=$(pid "$mp")
exec 5<"$mp/f"
mount --bind "$mp" "$mp"
umount "$mp"; mounted "$mp" || fail "umount of one bind mount took all away"
rc=0; umount "$mp" 2>/dev/null || rc=$?; [ $rc = 32 ] || fail "umount of what is in use: exit code $rc"
umount -l "$mp"; exec 5<&-; ended $p
mount -t daxfsd "$region" "$mp"; "$0" umount "$mp"
mount -t daxfsd "$region" "$mp"; p=$(pid "$mp"); kill -TERM $p; ended $p
mount -t daxfsd "$region" "$mp"; p=$(pid "$mp"); kill -KILL $p; ended $p; "$0" umount "$mp" 2>/dev/null
[ ! -s /run/mount/utab ] || fail "left in utab: $(cat /run/mount/utab)"`, region, mp, rounds)
}

// TestUtabOfNextMount checks that the end of a daemon whose mount was detached keeps the line of
// the daxfsd that is mounted there now.
func TestUtabOfNextMount(t *testing.T) {
	t.Parallel()
	needFUSE(t)
	scripted(t, helpers+`
"$0" mkfs --size 16MiB "$region-2" >/dev/null
mount -t daxfsd "$region" "$mp"; p=$(pid "$mp"); echo x >"$mp/f"; exec 5<"$mp/f"
"$0" umount --lazy "$mp"
mount -t daxfsd "$region-2" "$mp"
grep -q "helper=fuse.daxfsd" /run/mount/utab || fail "the new mount is not in utab"
exec 5<&-; ended $p
grep -q "helper=fuse.daxfsd" /run/mount/utab || fail "the old daemon removed the line of the new mount"
umount "$mp"
[ ! -s /run/mount/utab ] || fail "left in utab: $(cat /run/mount/utab)"`, newRegion(t), mountPoint(t))
}

// TestMountAsUserByFstab checks that users mount and unmount what fstab lets them. mount(8) gives
// the helper no PATH in which it could find fusermount3.
func TestMountAsUserByFstab(t *testing.T) {
	t.Parallel()
	dir := userMountDir(t)
	scripted(t, `
cd "$1"
mkdir -p /run/mount; mount -t tmpfs none /run/mount
mknod fuse c 10 229 && chmod 666 fuse && mount --bind fuse /dev/fuse
mount -t tmpfs none "$(readlink -f /sbin)"
for n in mount.daxfsd mount.fuse.daxfsd umount.daxfsd umount.fuse.daxfsd; do ln -s "$PWD/daxfsd" "/sbin/$n"; done
echo "$PWD/own.dax $PWD/mnt daxfsd user,noauto 0 0" >fstab
[ -e /etc/fstab ] || touch /etc/fstab
mount --bind fstab /etc/fstab
exec setpriv --reuid 65534 --regid 65534 --clear-groups /bin/sh -ec '
	trap "./daxfsd umount --lazy mnt 2>/dev/null || true" EXIT
	./daxfsd mkfs --size 16MiB own.dax >/dev/null
	env -u PATH "$PWD/daxfsd" mount own.dax mnt
	env -u PATH "$PWD/daxfsd" umount mnt
	mount "$PWD/mnt"
	echo hello >mnt/file
	umount "$PWD/mnt"
	./daxfsd fsck -n own.dax >/dev/null
	mount "$PWD/mnt"
	[ "$(cat mnt/file)" = hello ]
'`, dir)
}
