// The calls of io_uring(7); their header would bring a hundred others.
#pragma once

#include <stdint.h>

// Where the parts of a ring are. Sizes and offsets in bytes.
struct martlet_ring_layout {
    uint32_t submissions, completions;                // entries of the two queues, powers of two
    uint32_t queues_size, entries_size;               // of the two mappings
    uint32_t submission_tail, submission_array;       // in the first mapping
    uint32_t completion_head, completion_tail, completion_entries;
};

// The operations that Martlet uses.
extern const uint8_t martlet_ring_read, martlet_ring_write, martlet_ring_readv, martlet_ring_writev, martlet_ring_fsync;
// RWF_DSYNC, IORING_FSYNC_DATASYNC; the offset of the second mapping.
extern const uint32_t martlet_RWF_DSYNC, martlet_FSYNC_DATASYNC;
extern const int64_t martlet_ring_entries_offset;

// Makes a ring that is disabled and takes no operations but `operations`, then enables it (io_uring_setup(2),
// io_uring_register(2)). Returns its descriptor, close-on-exec.
int martlet_ring_setup(unsigned entries, const uint8_t *operations, unsigned count, struct martlet_ring_layout *layout);
// io_uring_enter(2): submits, and waits for `wait` completions.
int martlet_ring_enter(int ring, unsigned submit, unsigned wait);
// Fills one entry of the second mapping.
void martlet_ring_prepare(
    void *entry, uint8_t operation, int file, const void *address, uint32_t length, uint64_t offset, uint32_t flags,
    uint64_t tag);
// Reads one entry of the completion queue.
int32_t martlet_ring_completion(const void *entry, uint64_t *tag);
// The bytes of one entry of each queue.
extern const uint32_t martlet_ring_entry_size, martlet_ring_completion_size;

// What direct I/O on a file wants (statx(2), STATX_DIOALIGN): the alignment of memory and of offsets, bytes. Returns 0 with
// both 0 where the file system or the kernel does not say.
int martlet_direct_alignment(int file, uint32_t *memory, uint32_t *offset);
