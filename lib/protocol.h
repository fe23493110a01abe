/*
 * What a program and the daemon say to each other, as docs/direct.md describes it and
 * direct/protocol/protocol.go defines it. All integers are little-endian; offsets and lengths are
 * bytes.
 */
#ifndef DX_PROTOCOL_H
#define DX_PROTOCOL_H

#include <stdint.h>

#define DX_PROTOCOL 1 /* version */

#define DX_GRANT_SIZE 8192
#define DX_COMMAND_SIZE 64
#define DX_IOC(n, size) (3u << 30 | (unsigned)(size) << 16 | 'D' << 8 | (n))
#define DX_IOC_GRANT DX_IOC(16, DX_GRANT_SIZE)
#define DX_IOC_CONFIRM DX_IOC(17, DX_COMMAND_SIZE)
#define DX_IOC_COMMIT DX_IOC(18, DX_COMMAND_SIZE)
#define DX_IOC_RELEASE DX_IOC(19, DX_COMMAND_SIZE)

/* Flags of a grant. */
#define DX_WRITE 1u
#define DX_ALLOCATE 2u

#define DX_EXTENTS 320
#define DX_PATH_MAX 400
#define DX_ID_MAX ((UINT64_C(1) << 61) - 2)
#define DX_BLOCK 4096

/* The byte of the region that whoever holds a grant locks. */
#define DX_IDENTITY(id, write) ((int64_t)((UINT64_C(1) << 62) + 2 * (uint64_t)(id) + ((write) ? 1 : 0)))

struct dx_grant_request {
	uint32_t version;
	uint32_t flags;
	uint64_t offset;
	uint64_t length;
	uint64_t page;
	unsigned char zero[DX_GRANT_SIZE - 32];
};

struct dx_extent {
	uint64_t offset; /* in the file */
	uint64_t region; /* in the region */
	uint64_t length;
};

struct dx_grant {
	uint32_t version;
	uint32_t flags;
	uint64_t id;
	uint64_t inode;
	uint64_t region_dev;
	uint64_t region_ino;
	unsigned char uuid[16];
	uint64_t slot;
	uint64_t generation;
	uint64_t file_size;
	uint64_t end;
	uint64_t granule;
	uint64_t region_size;
	uint64_t extents;
	char path[DX_PATH_MAX];
	struct dx_extent extent[DX_EXTENTS];
};

struct dx_command {
	uint32_t version;
	uint32_t zero;
	uint64_t id;
	uint64_t generation;
	uint64_t offset;
	uint64_t length;
	unsigned char rest[24];
};

/* The slot: a line of the region. */
#define DX_SLOT_SIZE 64
struct dx_slot {
	uint64_t generation; /* odd while the layout changes */
	uint64_t file_size;
};

_Static_assert(sizeof(struct dx_grant_request) == DX_GRANT_SIZE, "size of a request");
_Static_assert(sizeof(struct dx_grant) == DX_GRANT_SIZE, "size of a reply");
_Static_assert(sizeof(struct dx_command) == DX_COMMAND_SIZE, "size of a command");

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "libdaxfsd is for little-endian machines"
#endif

#endif
