/* Grants, and the locks of the kernel that keep them: steps 1 to 3 and 6 of docs/direct.md. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "internal.h"
#include "sys.h"

#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif
#define HUGETLBFS 0x958458f6

/* Every size and end in the protocol is at most this. */
#define MAX_END (UINT64_C(1) << 62)

static int fail(int e)
{
	errno = e;
	return -1;
}

static bool power_of_2(uint64_t v) { return v && !(v & (v - 1)); }

/* valid checks the reply to a request, so that other code may trust it. */
static bool valid(const struct dx_grant *g, uint64_t lo, uint64_t hi, uint32_t flags)
{
	bool write = flags & DX_WRITE;
	uint64_t last = lo;

	if (!g->id || g->id > DX_ID_MAX || g->flags != (flags & DX_WRITE) || g->region_size > MAX_END ||
	    g->file_size > MAX_END || g->slot % DX_SLOT_SIZE || g->slot >= g->region_size ||
	    g->region_size - g->slot < DX_SLOT_SIZE || g->generation % 2 || g->granule < DX_BLOCK ||
	    g->granule > MAX_END || !power_of_2(g->granule) || g->end <= lo || g->end > hi || g->end % DX_BLOCK ||
	    g->extents > DX_EXTENTS)
		return false;
	for (uint64_t i = 0; i < g->extents; i++) {
		const struct dx_extent *x = &g->extent[i];

		if ((x->offset | x->region | x->length) % DX_BLOCK || !x->length || x->offset < last ||
		    x->offset >= g->end || x->length > g->end - x->offset || x->region >= g->region_size ||
		    x->length > g->region_size - x->region || (write && x->offset != last))
			return false;
		last = x->offset + x->length;
	}
	return !write || last == g->end;
}

/* call is ioctl(2) again after a signal. */
static int call(int fd, unsigned long cmd, void *arg)
{
	int r;

	do
		r = (int)syscall(SYS_ioctl, fd, cmd, arg);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -1 : 0;
}

int dx_grant(int fd, uint64_t lo, uint64_t hi, uint32_t flags, uint64_t page, union dx_message *m)
{
	memset(m, 0, sizeof *m);
	m->request.version = DX_PROTOCOL;
	m->request.flags = flags;
	m->request.offset = lo;
	m->request.length = hi - lo;
	m->request.page = page;
	if (call(fd, DX_IOC_GRANT, m) < 0)
		return -1;
	if (m->grant.version != DX_PROTOCOL || !valid(&m->grant, lo, hi, flags))
		return fail(EPROTO);
	return 0;
}

int dx_command(int fd, unsigned long cmd, uint64_t id, uint64_t generation, uint64_t off, uint64_t n)
{
	struct dx_command c = {.version = DX_PROTOCOL, .id = id, .generation = generation, .offset = off, .length = n};

	if (call(fd, cmd, &c) < 0)
		return -1;
	return c.version == DX_PROTOCOL ? 0 : fail(EPROTO);
}

/* is_region reports whether fd has the region open. */
static bool is_region(const struct dx_region *r, int fd)
{
	struct dx_id id;

	if (dx_identify(fd, "", &id) < 0)
		return false;
	if (S_ISCHR(id.mode))
		return !r->ino && id.rdev == r->dev;
	return S_ISREG(id.mode) && r->ino && id.ino == r->ino && id.dev == r->dev;
}

/* open_at opens the region by a path. -1 with errno ENXIO if the path leads elsewhere. */
static int open_at(const struct dx_region *r, const char *path, int flags)
{
	struct dx_id id;
	int fd;

	/* Opening another device may have effects: look before, and again afterwards. */
	if (!*path || dx_identify(AT_FDCWD, path, &id) < 0)
		return *path ? -1 : fail(ENXIO);
	if (r->ino ? !S_ISREG(id.mode) : !S_ISCHR(id.mode) || id.rdev != r->dev)
		return fail(ENXIO);
	if ((fd = dx_open(path, flags)) < 0)
		return -1;
	if (!is_region(r, fd)) {
		dx_close(fd);
		return fail(ENXIO);
	}
	return fd;
}

/* open_region returns a new open file description of the region. */
static int open_region(const struct dx_region *r, int flags)
{
	int fd = open_at(r, r->path, flags), e = errno;
	char link[64], dir[256], path[300];
	ssize_t n;

	if (fd >= 0 || r->ino || (e != ENXIO && e != ENOENT))
		return fd;
	snprintf(link, sizeof link, "/sys/dev/char/%u:%u", major(r->dev), minor(r->dev));
	if ((n = readlink(link, dir, sizeof dir - 1)) > 0) {
		const char *name;

		dir[n] = 0;
		name = strrchr(dir, '/');
		snprintf(path, sizeof path, "/dev/%s", name ? name + 1 : dir);
		fd = open_at(r, path, flags);
	}
	if (fd < 0 && (errno == ENOENT || n <= 0))
		errno = ENXIO;
	return fd;
}

int dx_lease_begin(struct dx_lease *l, const struct dx_grant *g)
{
	struct dx_region *r = &l->region;
	struct statfs fs;

	memset(l, 0, sizeof *l);
	r->dev = g->region_dev;
	r->ino = g->region_ino;
	r->size = g->region_size;
	r->device = !r->ino;
	memcpy(r->path, g->path, DX_PATH_MAX);
	l->generation = g->generation;
	l->slot = g->slot;
	if ((l->fd = open_region(r, g->flags & DX_WRITE ? O_RDWR : O_RDONLY)) < 0)
		return -1;
	r->unit = (uint64_t)sysconf(_SC_PAGESIZE);
	if (r->device && g->granule > r->unit)
		r->unit = g->granule;
	if (!r->device) {
		r->sync = true; /* until the kernel refuses it */
		if (syscall(SYS_fstatfs, l->fd, &fs) == 0 && (unsigned long)fs.f_type == HUGETLBFS) {
			r->unit = (uint64_t)fs.f_bsize;
			r->sync = false;
		}
	}
	return 0;
}

static int lock(int fd, int64_t off, int64_t n)
{
	struct flock k = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = off, .l_len = n};
	int r;

	do
		r = dx_fcntl(fd, F_OFD_SETLK, (unsigned long)&k);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -1 : 0;
}

int dx_lease_add(struct dx_lease *l, const struct dx_grant *g, uint64_t lo)
{
	int i = l->grants;

	if (i == DX_GRANTS)
		return fail(ENOLCK);
	if (g->generation != l->generation || g->slot != l->slot || g->region_dev != l->region.dev || g->region_ino != l->region.ino)
		return fail(ESTALE);
	l->id[i] = g->id;
	l->lo[i] = lo;
	l->hi[i] = g->end;
	l->grants++;
	if (lock(l->fd, DX_IDENTITY(g->id, g->flags & DX_WRITE), 1) < 0)
		return -1;
	for (uint64_t x = 0; x < g->extents; x++)
		if (lock(l->fd, (int64_t)g->extent[x].region, (int64_t)g->extent[x].length) < 0)
			return -1;
	return 0;
}

int dx_lease_confirm(struct dx_lease *l, int fd)
{
	for (int i = 0; i < l->grants; i++) {
		if (dx_command(fd, DX_IOC_CONFIRM, l->id[i], l->generation, 0, 0) == 0)
			continue;
		if (errno == ENOENT) /* it expired, or the daemon was started again */
			errno = ESTALE;
		else if (errno == ENOLCK) /* another device node than the daemon's */
			errno = ENXIO;
		return -1;
	}
	return 0;
}

void dx_lease_end(struct dx_lease *l, int fd)
{
	int e = errno;

	if (l->fd >= 0)
		dx_close(l->fd);
	l->fd = -1;
	for (int i = 0; i < l->grants; i++)
		(void)dx_command(fd, DX_IOC_RELEASE, l->id[i], 0, 0, 0); /* a hint */
	errno = e;
}

int dx_map_region(struct dx_lease *l, void *at, uint64_t n, uint64_t off, bool write)
{
	int prot = write ? PROT_READ | PROT_WRITE : PROT_READ;
	struct dx_region *r = &l->region;

	if (r->sync) {
		if (dx_mmap(at, n, prot, MAP_SHARED_VALIDATE | MAP_SYNC | MAP_FIXED, l->fd, off) != MAP_FAILED)
			return 0;
		if (errno != EOPNOTSUPP && errno != EINVAL)
			return -1;
		r->sync = false;
	}
	return dx_mmap(at, n, prot, MAP_SHARED | MAP_FIXED, l->fd, off) == MAP_FAILED ? -1 : 0;
}
