// Package lib runs the checks of libdaxfsd, the C library (lib/test/check.c), on a mount: plainly,
// with the sanitizers of the C compiler, and against another daemon after a kill -9. It checks that
// lib/protocol.h agrees with direct/protocol, and that an installed library can be used as its
// manual says.
package lib
