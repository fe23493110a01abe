/*
 * A program that knows nothing of daxfsd, run with and without libdaxfsd-preload: program CHECK DIR.
 * DIR is on a mount. It prints what it saw, which must be the same both ways, and exits with 1 if that
 * is wrong in itself.
 */
#include "test.h"

#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>

static const char *dir;

static char *in(const char *name)
{
	static char path[8][4096];
	static int i;

	i = (i + 1) % 8;
	snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
	return path[i];
}

/* filled makes a file of n bytes b, and opens it. */
static int filled(const char *name, char b, size_t n, int flags)
{
	char *buf = malloc(n);
	int fd = open(in(name), O_RDWR | O_CREAT | O_TRUNC, 0600);

	CHECK(fd >= 0 && buf);
	memset(buf, b, n);
	CHECK(write(fd, buf, n) == (ssize_t)n && close(fd) == 0);
	free(buf);
	CHECK((fd = open(in(name), flags)) >= 0);
	return fd;
}

static char at(const char *path, off_t off)
{
	char c = 0;
	int fd = open(path, O_RDONLY);

	CHECK(fd >= 0 && pread(fd, &c, 1, off) == 1 && close(fd) == 0);
	return c;
}

/* reuse: a number that has become another file is that file, however that happened. */
static int victim;
static void by_close(int fd) { CHECK(close(fd) == 0 && dup2(victim, fd) == fd); }
static void by_dup2(int fd) { CHECK(dup2(victim, fd) == fd); }
static void by_dup3(int fd) { CHECK(dup3(victim, fd, O_CLOEXEC) == fd); }
static void by_raw_dup2(int fd) { CHECK(syscall(SYS_dup3, victim, fd, 0) == fd); }
static void by_raw_close(int fd) { CHECK(syscall(SYS_close, fd) == 0 && syscall(SYS_dup3, victim, fd, 0) == fd); }
static void by_raw_close_and_open(int fd)
{
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", victim);
	CHECK(syscall(SYS_close, fd) == 0);
	int other = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR);
	CHECK(other >= 0 && (other == fd || syscall(SYS_dup3, other, fd, 0) == fd));
}
static void by_fclose(int fd)
{
	FILE *f = fdopen(fd, "r+");

	CHECK(f && fclose(f) == 0 && dup2(victim, fd) == fd);
}
static void by_freopen(int fd)
{
	FILE *f = fdopen(fd, "r+");
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", victim);
	CHECK(f && freopen(path, "r+", f));
	CHECK(fileno(f) == fd || dup2(fileno(f), fd) == fd);
}
static void by_close_range(int fd) { CHECK(close_range((unsigned)fd, (unsigned)fd, 0) == 0 && dup2(victim, fd) == fd); }
static void by_closefrom(int fd)
{
	closefrom(fd);
	CHECK(dup2(victim, fd) == fd);
}
static void by_fcntl(int fd) { CHECK(close(fd) == 0 && fcntl(victim, F_DUPFD, fd) == fd); }

static void reuse(void)
{
	static const struct {
		const char *name;
		void (*f)(int fd);
	} ways[] = {{"close", by_close}, {"dup2", by_dup2}, {"dup3", by_dup3}, {"raw dup3", by_raw_dup2}, {"raw close", by_raw_close},
		    {"raw close and open", by_raw_close_and_open}, {"fclose", by_fclose}, {"freopen", by_freopen}, {"close_range", by_close_range},
		    {"closefrom", by_closefrom}, {"fcntl", by_fcntl}};
	char other[] = "/tmp/daxfsd-program-XXXXXX";
	int elsewhere = mkstemp(other);

	CHECK(elsewhere >= 0);
	for (int on_mount = 0; on_mount < 2; on_mount++)
		for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
			char b = 0;
			int fd;

			/* The other file is on another filesystem, or on the same one. */
			victim = on_mount ? filled("victim", 'v', 8192, O_RDWR) : dup(elsewhere);
			CHECK(pwrite(victim, "v", 1, 0) == 1 && ftruncate(victim, 8192) == 0 && pread(victim, &b, 1, 0) == 1);
			fd = filled("mine", 'm', 8192, O_RDWR);
			CHECK(dup2(fd, 200) == 200 && close(fd) == 0);
			fd = 200;
			CHECK(pread(fd, &b, 1, 0) == 1 && b == 'm' && pwrite(fd, "M", 1, 1) == 1);
			ways[i].f(fd);
			CHECK(pread(fd, &b, 1, 0) == 1);
			printf("%s: reads %c\n", ways[i].name, b);
			CHECK(pwrite(fd, "X", 1, 2) == 1);
			CHECK(at(in("mine"), 2) == 'm' && at(in("mine"), 1) == 'M');
			CHECK(b == 'v');
			close(fd);
			close(victim);
		}
	unlink(other);
}

/* offsets: shared by dup, fork and SCM_RIGHTS, and as read and write leave them. */
static void offsets(void)
{
	char b[100], c[CMSG_SPACE(sizeof(int))];
	int fd = filled("o", 'a', 10000, O_RDWR), d = dup(fd), st, pair[2];
	struct iovec v[3] = {{b, 10}, {b + 10, 0}, {b + 20, 30}}, one = {b, 1};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c};
	struct cmsghdr *h;
	pid_t child;

	CHECK(read(fd, b, 100) == 100 && lseek(d, 0, SEEK_CUR) == 100);
	CHECK(write(d, "xyz", 3) == 3 && lseek(fd, 0, SEEK_CUR) == 103);
	CHECK(readv(fd, v, 3) == 40 && lseek(fd, 0, SEEK_CUR) == 143);
	if ((child = fork()) == 0)
		_exit(read(fd, b, 7) != 7);
	CHECK(waitpid(child, &st, 0) == child && st == 0 && lseek(fd, 0, SEEK_CUR) == 150);
	CHECK(lseek(fd, -5, SEEK_END) == 9995 && read(fd, b, 100) == 5 && read(fd, b, 100) == 0 && lseek(fd, 0, SEEK_CUR) == 10000);
	CHECK(write(fd, "tail", 4) == 4 && lseek(fd, 0, SEEK_CUR) == 10004 && lseek(fd, 0, SEEK_END) == 10004);
	CHECK(lseek(fd, 20000, SEEK_SET) == 20000 && read(fd, b, 1) == 0 && lseek(fd, 0, SEEK_CUR) == 20000);
	CHECK(writev(fd, v, 3) == 40 && lseek(fd, 0, SEEK_CUR) == 20040);
	CHECK(pread(fd, b, 10, 15000) == 10 && b[0] == 0 && lseek(fd, 0, SEEK_CUR) == 20040);
	CHECK(read(fd, b, 0) == 0 && write(fd, b, 0) == 0 && lseek(fd, 0, SEEK_CUR) == 20040);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET, h->cmsg_type = SCM_RIGHTS, h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof fd);
	CHECK(sendmsg(pair[0], &m, 0) == 1 && recvmsg(pair[1], &m, 0) == 1);
	memcpy(&d, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof d);
	CHECK(lseek(fd, 0, SEEK_SET) == 0 && read(d, b, 50) == 50 && lseek(fd, 0, SEEK_CUR) == 50);
}

/* flags: O_APPEND, set at once and later, O_SYNC, and files that are not open for it. */
static void flags(void)
{
	char b[4];
	int fd = filled("f", 'a', 100, O_WRONLY | O_APPEND), rd, wr;
	struct stat st;

	CHECK(pwrite(fd, "end", 3, 5) == 3 && fstat(fd, &st) == 0);
	printf("appended to %ld\n", (long)st.st_size);
	CHECK(write(fd, "end", 3) == 3 && close(fd) == 0);
	fd = filled("f", 'a', 100, O_RDWR);
	CHECK(write(fd, "start", 5) == 5 && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_APPEND) == 0);
	CHECK(write(fd, "end", 3) == 3 && lseek(fd, 0, SEEK_CUR) == 103 && pread(fd, b, 3, 100) == 3 && !memcmp(b, "end", 3));
	CHECK(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_APPEND) == 0 && pwrite(fd, "x", 1, 0) == 1 && pread(fd, b, 1, 0) == 1 && b[0] == 'x');
	rd = open(in("f"), O_RDONLY), wr = open(in("f"), O_WRONLY);
	CHECK(write(rd, "n", 1) == -1 && errno == EBADF && pwrite(rd, "n", 1, 0) == -1 && errno == EBADF);
	CHECK(read(wr, b, 1) == -1 && errno == EBADF && pread(wr, b, 1, 0) == -1 && errno == EBADF);
	CHECK(pwrite(wr, "w", 1, 7) == 1 && pread(rd, b, 1, 7) == 1 && b[0] == 'w');
	CHECK(pread(rd, b, 1, -1) == -1 && errno == EINVAL);
	CHECK((wr = open(in("f"), O_RDWR | O_SYNC)) >= 0 && pwrite(wr, "s", 1, 8) == 1 && pread(rd, b, 1, 8) == 1 && b[0] == 's');
	CHECK((wr = open(in("f"), O_RDWR | O_TRUNC)) >= 0 && pread(rd, b, 1, 8) == 0);
	CHECK(fcntl(wr, F_GETSIG) == 0);
	CHECK((wr = open(dir, O_TMPFILE | O_RDWR, 0600)) >= 0 && pwrite(wr, "tmp", 3, 0) == 3 && pwrite(wr, "T", 1, 0) == 1 && pread(wr, b, 3, 0) == 3 && !memcmp(b, "Tmp", 3));
}

/* times: what stat shows after writes and reads. */
static void times(void)
{
	int fd = filled("t", 'a', 8192, O_RDWR);
	struct timespec ms = {0, 20000000};
	struct stat a, b, c;
	struct statx x;

	CHECK(pwrite(fd, "1", 1, 0) == 1 && fstat(fd, &a) == 0 && nanosleep(&ms, NULL) == 0);
	CHECK(pwrite(fd, "2", 1, 0) == 1 && stat(in("t"), &b) == 0 && nanosleep(&ms, NULL) == 0);
	CHECK(b.st_mtim.tv_sec > a.st_mtim.tv_sec || b.st_mtim.tv_nsec > a.st_mtim.tv_nsec);
	CHECK(pwrite(fd, "3", 1, 0) == 1 && statx(AT_FDCWD, in("t"), 0, STATX_MTIME, &x) == 0);
	CHECK(x.stx_mtime.tv_sec > b.st_mtim.tv_sec || x.stx_mtime.tv_nsec > b.st_mtim.tv_nsec);
	CHECK(fstat(fd, &a) == 0 && nanosleep(&ms, NULL) == 0 && stat(in("t"), &c) == 0);
	CHECK(a.st_mtim.tv_sec == c.st_mtim.tv_sec && a.st_mtim.tv_nsec == c.st_mtim.tv_nsec);
	CHECK(pwrite(fd, "4", 1, 0) == 1 && close(fd) == 0 && stat(in("t"), &b) == 0);
	CHECK(b.st_mtim.tv_sec > c.st_mtim.tv_sec || b.st_mtim.tv_nsec > c.st_mtim.tv_nsec);
}

/* threads: writes of many threads at one offset lose and overlap nothing. */
static int thread_fd;
static void *writes(void *arg)
{
	char rec[512];

	memset(rec, 'A' + (int)(intptr_t)arg, sizeof rec);
	for (int i = 0; i < 500; i++)
		CHECK(write(thread_fd, rec, sizeof rec) == sizeof rec);
	return NULL;
}
static void threads(void)
{
	enum { T = 4, N = 500 * 512 * T };
	static char all[N];
	pthread_t t[T];
	int count[T] = {0};

	thread_fd = filled("th", '.', N, O_RDWR);
	for (int i = 0; i < T; i++)
		CHECK(pthread_create(&t[i], NULL, writes, (void *)(intptr_t)i) == 0);
	for (int i = 0; i < T; i++)
		pthread_join(t[i], NULL);
	CHECK(lseek(thread_fd, 0, SEEK_CUR) == N && pread(thread_fd, all, N, 0) == N);
	for (int i = 0; i < N; i += 512) {
		for (int k = 1; k < 512; k++)
			CHECK(all[i] == all[i + k]);
		CHECK(all[i] >= 'A' && all[i] < 'A' + T);
		count[all[i] - 'A']++;
	}
	for (int i = 0; i < T; i++)
		CHECK(count[i] == 500);
}

/* handler: reading and writing in a signal handler, whatever the program is doing. */
static int handler_fd;
static volatile sig_atomic_t handled;
static void on_alarm(int sig)
{
	char b[8];
	int e = errno;

	(void)sig;
	if (pwrite(handler_fd, "handler", 7, 5000) != 7 || pread(handler_fd, b, 7, 5000) != 7 || memcmp(b, "handler", 7))
		_exit(3);
	handled++;
	errno = e;
}
static void handler(void)
{
	struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
	struct sigaction a = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	char b[4096];

	handler_fd = filled("h", 'h', 64 << 10, O_RDWR);
	CHECK(sigaction(SIGALRM, &a, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
	for (int i = 0; i < 300; i++) {
		int fd = filled("h2", 'x', 64 << 10, O_RDWR);

		for (int k = 0; k < 8; k++)
			CHECK(pread(fd, b, 4096, k * 4096) == 4096 && pwrite(fd, b, 4096, 32768) == 4096);
		CHECK(ftruncate(fd, 100) == 0 && close(fd) == 0);
	}
	CHECK(setitimer(ITIMER_REAL, &never, NULL) == 0);
	CHECK(handled > 0);
}

/* map: shared mappings, with all that is done to them. */
static void map(void)
{
	int fd = filled("m", 'a', 4 * MB, O_RDWR), rd = open(in("m"), O_RDONLY), st;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	char *p, *q, b[10];
	pid_t child;

	CHECK((p = mmap(NULL, 4 * MB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) != MAP_FAILED);
	CHECK(mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, rd, 0) == MAP_FAILED && errno == EACCES);
	CHECK(p[0] == 'a' && p[4 * MB - 1] == 'a');
	memcpy(p + 5000, "stored", 6);
	CHECK(msync(p, 4 * MB, MS_SYNC) == 0 && pread(fd, b, 6, 5000) == 6 && !memcmp(b, "stored", 6));
	CHECK(pwrite(fd, "written", 7, 6000) == 7 && !memcmp(p + 6000, "written", 7));
	CHECK((q = mmap(NULL, 2 * page, PROT_READ, MAP_SHARED, rd, page)) != MAP_FAILED && !memcmp(q + 5000 - page, "stored", 6));
	CHECK(mprotect(q, page, PROT_READ | PROT_WRITE) == -1 && errno == EACCES && munmap(q, page) == 0 && q[page] == 'a' && munmap(q + page, page) == 0);
	if ((child = fork()) == 0) {
		memcpy(p + 7000, "child", 5);
		_exit(memcmp(p + 5000, "stored", 6) != 0);
	}
	CHECK(waitpid(child, &st, 0) == child && st == 0 && !memcmp(p + 7000, "child", 5));
	/* A part of it, moved and grown. */
	CHECK(munmap(p + MB, MB) == 0 && p[0] == 'a' && p[2 * MB] == 'a');
	CHECK((q = mremap(p + 2 * MB, 2 * MB, 3 * MB, MREMAP_MAYMOVE)) != MAP_FAILED || errno == EFAULT || errno == ENOMEM);
	if (q != MAP_FAILED)
		CHECK(q[0] == 'a' && munmap(q, 3 * MB) == 0);
	CHECK(munmap(p, 4 * MB) == 0);
	/* Read first, then written. */
	CHECK((p = mmap(NULL, MB, PROT_READ, MAP_SHARED, fd, 0)) != MAP_FAILED && mprotect(p, MB, PROT_READ | PROT_WRITE) == 0);
	p[9] = 'W';
	CHECK(pread(fd, b, 1, 9) == 1 && b[0] == 'W' && close(fd) == 0 && p[9] == 'W');
	p[10] = 'X';
	CHECK(pread(rd, b, 1, 10) == 1 && b[0] == 'X');
	/* At a given address, and something else over it. */
	CHECK((q = mmap(NULL, MB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED);
	CHECK(mmap(q, MB, PROT_READ, MAP_SHARED | MAP_FIXED, rd, 0) == q && q[9] == 'W');
	CHECK(mmap(q, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == q && q[9] == 0 && q[page] == 'a');
	q[9] = 'n';
	CHECK(msync(q, MB, MS_ASYNC) == 0 && p[9] == 'W');
	/* Truncated by others. */
	CHECK(truncate(in("m"), 100) == 0 && truncate(in("m"), MB) == 0 && (fd = open(in("m"), O_RDWR)) >= 0 && pread(fd, b, 10, 0) == 10);
	printf("after truncate: %d %d\n", p[9], p[5000]);
	/* Private mappings are copies. */
	CHECK((q = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE, rd, 0)) != MAP_FAILED);
	q[0] = 'P';
	CHECK(pread(rd, b, 1, 0) == 1 && b[0] == 'a');
}

/* bus: the handler of SIGBUS is the program's. */
static volatile sig_atomic_t buses;
static void on_bus(int sig, siginfo_t *info, void *u)
{
	(void)sig, (void)u;
	buses++;
	if (mmap((void *)((uintptr_t)info->si_addr & ~(uintptr_t)4095), 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		_exit(4);
}
static void bus(void)
{
	struct sigaction a = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO}, old;
	int fd = filled("b", 'b', 8192, O_RDWR), x = memfd_create("x", 0);
	char b[10], *p;

	CHECK(pread(fd, b, 10, 0) == 10);
	CHECK(sigaction(SIGBUS, &a, &old) == 0 && old.sa_handler == SIG_DFL);
	CHECK(pread(fd, b, 10, 4096) == 10);
	CHECK((p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, x, 0)) != MAP_FAILED);
	CHECK(*(volatile char *)p == 0 && buses == 1);
	CHECK(sigaction(SIGBUS, NULL, &old) == 0 && old.sa_sigaction == on_bus);
	CHECK(signal(SIGBUS, SIG_DFL) != SIG_ERR && sigaction(SIGBUS, NULL, &old) == 0 && old.sa_handler == SIG_DFL);
}

/* children: exec and posix_spawn with a served file as standard output; vfork. */
extern char **environ;
static void children(void)
{
	int fd = filled("c", 'c', 4096, O_RDWR), st;
	posix_spawn_file_actions_t act;
	char *argv[] = {"sh", "-c", "printf hello; exit 5", NULL}, b[10];
	pid_t child;

	CHECK(pread(fd, b, 1, 0) == 1);
	CHECK(posix_spawn_file_actions_init(&act) == 0 && posix_spawn_file_actions_adddup2(&act, fd, 1) == 0);
	CHECK(posix_spawn(&child, "/bin/sh", &act, NULL, argv, environ) == 0 && waitpid(child, &st, 0) == child && WEXITSTATUS(st) == 5);
	CHECK(pread(fd, b, 6, 0) == 6 && !memcmp(b, "helloc", 6) && lseek(fd, 0, SEEK_CUR) == 5);
	if ((child = vfork()) == 0) {
		dup2(2, fd);
		_exit(0);
	}
	CHECK(waitpid(child, &st, 0) == child && st == 0 && pread(fd, b, 1, 0) == 1 && b[0] == 'h' && write(fd, "W", 1) == 1 && at(in("c"), 5) == 'W');
}

int main(int argc, char **argv)
{
	static const struct check checks[] = {{"reuse", reuse}, {"offsets", offsets}, {"flags", flags}, {"times", times}, {"threads", threads}, {"handler", handler},
		      {"map", map}, {"bus", bus}, {"children", children}};

	return run(argc, argv, checks, sizeof checks / sizeof *checks, &dir);
}
