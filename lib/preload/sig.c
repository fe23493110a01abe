/*
 * The handler of SIGBUS belongs to this library, which passes on what is not its own (guard.c). What
 * the program sets is what it passes on to.
 */
#include "preload.h"

#include <signal.h>
#include <string.h>

EXPORT int sigaction(int sig, const struct sigaction *restrict new, struct sigaction *restrict old)
{
	if (sig == SIGBUS && dx_guard_action(new, old))
		return 0;
	return NEXT(sigaction)(sig, new, old);
}

/* by_signal is signal(3), with the flags of the variant. */
static sighandler_t by_signal(sighandler_t handler, int flags)
{
	struct sigaction new, old;

	memset(&new, 0, sizeof new);
	new.sa_handler = handler;
	new.sa_flags = flags;
	sigemptyset(&new.sa_mask);
	return sigaction(SIGBUS, &new, &old) < 0 ? SIG_ERR : old.sa_handler;
}

EXPORT sighandler_t signal(int sig, sighandler_t handler)
{
	return sig == SIGBUS ? by_signal(handler, SA_RESTART) : NEXT(signal)(sig, handler);
}
sighandler_t bsd_signal(int sig, sighandler_t handler);
EXPORT sighandler_t bsd_signal(int sig, sighandler_t handler)
{
	return sig == SIGBUS ? by_signal(handler, SA_RESTART) : NEXT(bsd_signal)(sig, handler);
}
EXPORT sighandler_t sysv_signal(int sig, sighandler_t handler)
{
	return sig == SIGBUS ? by_signal(handler, SA_RESETHAND | SA_NODEFER) : NEXT(sysv_signal)(sig, handler);
}
