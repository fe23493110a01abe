/*
 * The checks of libdaxfsd, each on a file of a mount: check NAME FILE. It prints what is wrong and
 * exits with 1.
 */
#include "test.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "../daxfsd.h"

static int fd;
static const char *path;

static daxfsd_file *open_file(int flags)
{
	daxfsd_file *f;

	CHECK((fd = open(path, flags | O_CREAT, 0600)) >= 0);
	CHECK((f = daxfsd_open(fd)));
	return f;
}

static void fill(char *b, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		b[i] = (char)(seed + i * 7 + (i >> 12));
}

/* copy: what is written one way is read the other way, at any alignment, over holes and the end. */
static void copy(void)
{
	daxfsd_file *f = open_file(O_RDWR | O_TRUNC);
	static char a[3 * MB], b[3 * MB];
	struct stat st, st2;

	fill(a, sizeof a, 1);
	CHECK(daxfsd_pread(f, b, 10, 0) == 0);
	CHECK(daxfsd_pwrite(f, a, sizeof a, 0) == sizeof a); /* grows: by the system call */
	CHECK(daxfsd_pread(f, b, sizeof b, 0) == sizeof b && !memcmp(a, b, sizeof a));
	for (int i = 0; i < 3000; i++) {
		size_t off = (size_t)rand() % (sizeof a - 9000), n = (size_t)rand() % 9000;

		fill(a + off, n, (unsigned)i);
		if (i % 3)
			CHECK(daxfsd_pwrite(f, a + off, n, (off_t)off) == (ssize_t)n);
		else
			CHECK(pwrite(fd, a + off, n, (off_t)off) == (ssize_t)n);
		memset(b + off, 0, n);
		if (i % 2)
			CHECK(daxfsd_pread(f, b + off, n, (off_t)off) == (ssize_t)n);
		else
			CHECK(pread(fd, b + off, n, (off_t)off) == (ssize_t)n);
		CHECK(!memcmp(a + off, b + off, n));
	}
	CHECK(daxfsd_pread(f, b, sizeof b, 0) == sizeof b && !memcmp(a, b, sizeof a));
	CHECK(daxfsd_pread(f, b, 100, sizeof a - 50) == 50 && daxfsd_pread(f, b, 100, sizeof a + 5000) == 0);
	/* Others change the layout. */
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 100000) == 0);
	memset(a + 100, 0, 100000);
	CHECK(daxfsd_pread(f, b, sizeof b, 0) == sizeof b && !memcmp(a, b, sizeof a));
	CHECK(daxfsd_pwrite(f, "x", 1, 50000) == 1);
	a[50000] = 'x';
	CHECK(daxfsd_pread(f, b, sizeof b, 0) == sizeof b && !memcmp(a, b, sizeof a));
	CHECK(ftruncate(fd, 5000) == 0 && ftruncate(fd, 20000) == 0);
	memset(a + 5000, 0, 15000);
	CHECK(daxfsd_pread(f, b, sizeof b, 0) == 20000 && !memcmp(a, b, 20000));
	CHECK(daxfsd_grow(f, 50000) == 0 && daxfsd_grow(f, 10) == 0);
	memset(a + 20000, 0, 30000);
	CHECK(daxfsd_pread(f, b, sizeof b, 0) == 50000 && !memcmp(a, b, 50000));
	/* Times. */
	CHECK(fstat(fd, &st) == 0);
	CHECK(daxfsd_pwrite(f, "y", 1, 100) == 1 && daxfsd_sync(f) == 0 && fstat(fd, &st2) == 0);
	CHECK(st2.st_mtim.tv_sec > st.st_mtim.tv_sec || st2.st_mtim.tv_nsec != st.st_mtim.tv_nsec);
	CHECK(daxfsd_close(f) == 0);
}

/* errors: what each misuse answers. */
static void errors(void)
{
	daxfsd_file *f;
	int p[2], ro;
	char b[10];

	CHECK(!daxfsd_open(-1) && errno == EBADF);
	CHECK(pipe(p) == 0 && !daxfsd_open(p[0]) && errno == EINVAL);
	CHECK((ro = open("/proc/self/exe", O_RDONLY)) >= 0 && !daxfsd_open(ro) && errno == ENOTTY);
	f = open_file(O_RDWR | O_TRUNC);
	CHECK(ftruncate(fd, 3 * MB) == 0);
	CHECK((ro = open(path, O_RDONLY)) >= 0);
	CHECK(daxfsd_pread(f, b, 10, -1) == -1 && errno == EINVAL);
	CHECK(!daxfsd_mmap(f, 0, 4 * MB, 0, 0) && errno == EINVAL);
	CHECK(!daxfsd_mmap(f, 100, 4096, 0, 0) && errno == EINVAL);
	CHECK(!daxfsd_mmap(f, 0, 4096, DAXFSD_ALLOCATE, 0) && errno == EINVAL);
	CHECK(!daxfsd_mmap(f, 0, 4096, DAXFSD_WRITE, 0) && errno == ENODATA);
	CHECK(daxfsd_close(f) == 0);
	CHECK((f = daxfsd_open(ro)));
	CHECK(daxfsd_pwrite(f, "a", 1, 0) == -1 && errno == EBADF);
	CHECK(!daxfsd_mmap(f, 0, 4096, DAXFSD_WRITE | DAXFSD_ALLOCATE, 0) && errno == EBADF);
	CHECK(daxfsd_close(f) == 0);
}

/* map: stores through a mapping are the file's, and others' changes make it stale. */
static void map(void)
{
	daxfsd_file *f = open_file(O_RDWR | O_TRUNC);
	daxfsd_map *m, *r;
	static char b[4 * MB];
	char *p;

	CHECK(ftruncate(fd, sizeof b) == 0);
	CHECK((m = daxfsd_mmap(f, 0, sizeof b, DAXFSD_WRITE | DAXFSD_ALLOCATE, 0)));
	CHECK((r = daxfsd_mmap(f, 4096, 8192, 0, 0)));
	CHECK(daxfsd_close(f) == 0);
	p = daxfsd_addr(m);
	for (size_t i = 0; i < sizeof b; i++)
		CHECK(p[i] == 0);
	fill(p, sizeof b, 9);
	CHECK(daxfsd_flush(m, 0, sizeof b) == 0 && daxfsd_flush(m, sizeof b, 1) == -1);
	CHECK(pread(fd, b, sizeof b, 0) == sizeof b && !memcmp(b, p, sizeof b));
	CHECK(!memcmp(daxfsd_addr(r), p + 4096, 8192));
	CHECK(!daxfsd_stale(m) && !daxfsd_stale(r));
	CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192) == 0);
	CHECK(daxfsd_stale(m) && daxfsd_stale(r) && !memcmp(b, p, sizeof b)); /* nobody else's */
	CHECK(daxfsd_pin(m) == 0 && daxfsd_unmap(m) == 0 && daxfsd_unpin(m) == 0 && daxfsd_unmap(r) == 0);
}

/* fault: a fault in a copy is repeated by the system call; others' faults are others'. */
static volatile sig_atomic_t caught;
static void on_bus(int sig)
{
	(void)sig;
	caught++;
	_exit(42);
}
static void fault(void)
{
	pid_t child;
	int st;

	if ((child = fork()) == 0) {
		char *p;
		int x = memfd_create("x", 0);

		signal(SIGBUS, on_bus);
		open_file(O_RDWR);
		CHECK((p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, x, 0)) != MAP_FAILED);
		_exit(*(volatile char *)p);
	}
	CHECK(waitpid(child, &st, 0) == child && WIFEXITED(st) && WEXITSTATUS(st) == 42);
}

/* threads: readers and writers of one file while its layout changes; each block is one writer's. */
static daxfsd_file *shared;
static atomic_bool over;
static void *hammer(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	char b[4096], w[4096];

	while (!over) {
		off_t off = (off_t)(rand_r(&seed) % 512) * 4096;

		if (rand_r(&seed) % 2) {
			memset(w, rand_r(&seed), sizeof w);
			CHECK(daxfsd_pwrite(shared, w, sizeof w, off) == sizeof w);
		} else {
			ssize_t n = daxfsd_pread(shared, b, sizeof b, off);

			CHECK(n >= 0);
		}
	}
	return NULL;
}
static void threads(void)
{
	pthread_t t[4];
	struct timespec ms = {0, 1000000};

	shared = open_file(O_RDWR | O_TRUNC);
	CHECK(ftruncate(fd, 2 * MB) == 0);
	for (int i = 0; i < 4; i++)
		CHECK(pthread_create(&t[i], NULL, hammer, (void *)(uintptr_t)(i + 1)) == 0);
	for (int i = 0; i < 1500; i++) {
		nanosleep(&ms, NULL);
		switch (i % 5) {
		case 0: CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (i % 400) * 4096, 40960) == 0); break;
		case 1: CHECK(ftruncate(fd, (i % 500) * 4096) == 0); break;
		case 2: CHECK(ftruncate(fd, 2 * MB) == 0); break;
		case 3: CHECK(fallocate(fd, 0, 0, MB) == 0); break;
		case 4:
			if (i % 50 == 4) {
				pid_t child = fork();
				char b[100];

				if (child == 0)
					_exit(daxfsd_pread(shared, b, sizeof b, 0) < 0 || daxfsd_pwrite(shared, b, sizeof b, 4096) < 0);
				int st;
				CHECK(child > 0 && waitpid(child, &st, 0) == child && st == 0);
			}
		}
	}
	over = 1;
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	CHECK(daxfsd_close(shared) == 0);
}

/* speed: how long a copy of 4 KiB takes, beside memcpy and pread(2). */
static double each(struct timespec *from, int n)
{
	struct timespec to;

	clock_gettime(CLOCK_MONOTONIC, &to);
	return ((double)(to.tv_sec - from->tv_sec) * 1e9 + (double)(to.tv_nsec - from->tv_nsec)) / n;
}
static void speed(void)
{
	enum { SIZE = 64 * MB, N = 200000 };
	daxfsd_file *f = open_file(O_RDWR | O_TRUNC);
	static char b[4096], *all;
	struct timespec t;
	daxfsd_map *m;

	CHECK((all = malloc(SIZE)));
	fill(all, SIZE, 3);
	CHECK(pwrite(fd, all, SIZE, 0) == SIZE);
	CHECK((m = daxfsd_mmap(f, 0, SIZE, DAXFSD_WRITE, 0)));
	for (int round = 0; round < 3; round++) {
		unsigned seed = 1;
#define RUN(name, n, op)                                                                            \
	do {                                                                                       \
		clock_gettime(CLOCK_MONOTONIC, &t);                                                \
		for (int i = 0; i < (n); i++) {                                                    \
			off_t off = (off_t)(rand_r(&seed) % (SIZE / 4096)) * 4096;                 \
			op;                                                                        \
		}                                                                                  \
		printf("%s %.0f ns  ", name, each(&t, n));                                         \
	} while (0)
		RUN("memcpy", N, memcpy(b, (char *)daxfsd_addr(m) + off, 4096));
		RUN("daxfsd_pread", N, CHECK(daxfsd_pread(f, b, 4096, off) == 4096));
		RUN("daxfsd_pwrite", N, CHECK(daxfsd_pwrite(f, b, 4096, off) == 4096));
		RUN("pread", N / 20, CHECK(pread(fd, b, 4096, off) == 4096));
		puts("");
	}
	CHECK(daxfsd_unmap(m) == 0 && daxfsd_close(f) == 0);
	free(all);
}

int main(int argc, char **argv)
{
	static const struct check checks[] = {{"copy", copy}, {"errors", errors}, {"map", map}, {"fault", fault}, {"threads", threads}, {"speed", speed}};

	return run(argc, argv, checks, sizeof checks / sizeof *checks, &path);
}
