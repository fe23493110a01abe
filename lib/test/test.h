/* What the programs of this folder share. */
#ifndef TEST_H
#define TEST_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* CHECK ends the program, and says what is wrong, unless x holds. */
#define CHECK(x)                                                                                   \
	do                                                                                         \
		if (!(x)) {                                                                        \
			fprintf(stderr, "%s:%d: %s: errno %d, %s\n", __FILE__, __LINE__, #x, errno, strerror(errno)); \
			exit(1);                                                                   \
		}                                                                                  \
	while (0)

enum { MB = 1 << 20 };

/* A check, by the name with which the program is called. */
struct check {
	const char *name;
	void (*f)(void);
};

/* run runs the check that the first argument names; the second one is where. */
static int run(int argc, char **argv, const struct check *checks, size_t n, const char **where)
{
	if (argc == 3)
		for (size_t i = 0; i < n; i++)
			if (!strcmp(argv[1], checks[i].name)) {
				*where = argv[2];
				checks[i].f();
				return 0;
			}
	fprintf(stderr, "usage: %s CHECK PATH\n", argv[0]);
	return 2;
}

#endif
