/* Copies that survive faults, flushes, and the locks of this library. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>
#if defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#endif

#include "internal.h"

extern const char dx_guard_begin[], dx_guard_end[], dx_guard_fault[];

static atomic_bool installed;
static struct sigaction before; /* what others had installed */

/* on_bus goes on at dx_guard_fault after a fault of a guarded copy. All other faults are others'. */
static void on_bus(int sig, siginfo_t *info, void *context)
{
	ucontext_t *u = context;
#if defined(__x86_64__)
	greg_t *pc = &u->uc_mcontext.gregs[REG_RIP];
#else
	unsigned long long *pc = &u->uc_mcontext.pc;
#endif

	if ((uintptr_t)*pc >= (uintptr_t)dx_guard_begin && (uintptr_t)*pc < (uintptr_t)dx_guard_end) {
		*pc = (__typeof__(*pc))(uintptr_t)dx_guard_fault;
		return;
	}
	if (before.sa_flags & SA_SIGINFO)
		before.sa_sigaction(sig, info, context);
	else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
		before.sa_handler(sig);
	else { /* the instruction faults again, and the process ends as without this library */
		atomic_store(&installed, false); /* the preload library's sigaction asks */
		sigaction(sig, &before, NULL);
	}
}

static void install(void)
{
	struct sigaction a;

	memset(&a, 0, sizeof a);
	a.sa_sigaction = on_bus;
	a.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
	sigemptyset(&a.sa_mask);
	if (sigaction(SIGBUS, &a, &before) == 0)
		atomic_store(&installed, true);
}

bool dx_guard_action(const struct sigaction *new, struct sigaction *old)
{
	struct sigaction was = before;

	if (!atomic_load(&installed))
		return false;
	if (new)
		before = *new;
	if (old)
		*old = was;
	return true;
}

void dx_guard_install(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, install);
}

#if defined(__x86_64__)
int dx_flush_clwb(void *p, size_t lines);
int dx_flush_clflushopt(void *p, size_t lines);
int dx_flush_clflush(void *p, size_t lines);

static int (*flusher(void))(void *, size_t)
{
	unsigned a, b, c, d;

	if (!__get_cpuid_count(7, 0, &a, &b, &c, &d))
		return dx_flush_clflush;
	return b & 1u << 24 ? dx_flush_clwb : b & 1u << 23 ? dx_flush_clflushopt : dx_flush_clflush;
}

void dx_fence(void) { __asm__ volatile("sfence" ::: "memory"); }
#else
int dx_flush_cvac(void *p, size_t lines);
int dx_flush_cvap(void *p, size_t lines);

static int (*flusher(void))(void *, size_t)
{
	return getauxval(AT_HWCAP) & 1u << 16 /* HWCAP_DCPOP */ ? dx_flush_cvap : dx_flush_cvac;
}

void dx_fence(void) { __asm__ volatile("dsb sy" ::: "memory"); }
#endif

int dx_flush(char *p, size_t n)
{
	static int (*_Atomic how)(void *, size_t);
	int (*f)(void *, size_t) = atomic_load_explicit(&how, memory_order_relaxed);
	char *first = (char *)((uintptr_t)p & ~(uintptr_t)(DX_LINE - 1));

	if (!n)
		return 0;
	if (!f)
		atomic_store_explicit(&how, f = flusher(), memory_order_relaxed);
	return f(first, ((size_t)(p - first) + n + DX_LINE - 1) / DX_LINE);
}

int dx_store(char *dst, const char *src, size_t n)
{
	size_t head = -(uintptr_t)dst & (DX_LINE - 1), lines;

	if (head > n)
		head = n;
	if (head && (dx_copy(dst, src, head) < 0 || dx_flush(dst, head) < 0))
		return -1;
	dst += head, src += head, n -= head;
	lines = n & ~(size_t)(DX_LINE - 1);
	if (dx_copy_lines(dst, src, lines) < 0)
		return -1;
	dst += lines, src += lines, n -= lines;
	if (n && (dx_copy(dst, src, n) < 0 || dx_flush(dst, n) < 0))
		return -1;
#if defined(__aarch64__)
	/* stnp is only a hint that the lines are not wanted in the caches. */
	return dx_flush(dst - lines, lines);
#else
	return 0;
#endif
}

static atomic_int epoch = 1;

void dx_new_epoch(void) { atomic_fetch_add(&epoch, 1); }

bool dx_trylock(dx_lock_t *l)
{
	int e = atomic_load_explicit(&epoch, memory_order_relaxed), was = atomic_load_explicit(l, memory_order_relaxed);

	return was != e && atomic_compare_exchange_strong_explicit(l, &was, e, memory_order_acquire, memory_order_relaxed);
}

void dx_lock(dx_lock_t *l)
{
	while (!dx_trylock(l))
		sched_yield();
}

void dx_unlock(dx_lock_t *l) { atomic_store_explicit(l, 0, memory_order_release); }
