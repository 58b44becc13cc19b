#include "CLinux.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <linux/stat.h>
#include <string.h>
#include <unistd.h>

const uint8_t martlet_ring_read = IORING_OP_READ, martlet_ring_write = IORING_OP_WRITE;
const uint8_t martlet_ring_readv = IORING_OP_READV, martlet_ring_writev = IORING_OP_WRITEV;
const uint8_t martlet_ring_fsync = IORING_OP_FSYNC;
const uint32_t martlet_RWF_DSYNC = RWF_DSYNC, martlet_FSYNC_DATASYNC = IORING_FSYNC_DATASYNC;
const int64_t martlet_ring_entries_offset = IORING_OFF_SQES;
const uint32_t martlet_ring_entry_size = sizeof(struct io_uring_sqe);
const uint32_t martlet_ring_completion_size = sizeof(struct io_uring_cqe);

// Linux 6.1; linux/stat.h of an older system does not have it.
#ifndef STATX_DIOALIGN
#define STATX_DIOALIGN 0x2000U
#endif

enum { MAXIMUM_OPERATIONS = 8 };

static int restrict_to(int ring, const uint8_t *operations, unsigned count) {
    struct io_uring_restriction rules[MAXIMUM_OPERATIONS];
    memset(rules, 0, sizeof rules);
    for (unsigned i = 0; i < count; i++) {
        rules[i].opcode = IORING_RESTRICTION_SQE_OP;
        rules[i].sqe_op = operations[i];
    }
    if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_RESTRICTIONS, rules, count) < 0) return -1;
    return (int)syscall(SYS_io_uring_register, ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

int martlet_ring_setup(unsigned entries, const uint8_t *operations, unsigned count, struct martlet_ring_layout *layout) {
    if (count > MAXIMUM_OPERATIONS) {
        errno = EINVAL;
        return -1;
    }
    struct io_uring_params p = {.flags = IORING_SETUP_R_DISABLED};
    int ring = (int)syscall(SYS_io_uring_setup, entries, &p);
    if (ring < 0) return -1;
    const uint32_t wanted = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE;
    int error = (p.features & wanted) == wanted ? 0 : ENOSYS;
    if (error == 0 && restrict_to(ring, operations, count) < 0) error = errno;
    if (error != 0) {
        close(ring);
        errno = error;
        return -1;
    }
    uint32_t submissions_end = p.sq_off.array + p.sq_entries * (uint32_t)sizeof(uint32_t);
    uint32_t completions_end = p.cq_off.cqes + p.cq_entries * (uint32_t)sizeof(struct io_uring_cqe);
    *layout = (struct martlet_ring_layout){
        .submissions = p.sq_entries,
        .completions = p.cq_entries,
        .queues_size = submissions_end > completions_end ? submissions_end : completions_end,
        .entries_size = p.sq_entries * (uint32_t)sizeof(struct io_uring_sqe),
        .submission_tail = p.sq_off.tail,
        .submission_array = p.sq_off.array,
        .completion_head = p.cq_off.head,
        .completion_tail = p.cq_off.tail,
        .completion_entries = p.cq_off.cqes,
    };
    return ring;
}

int martlet_ring_enter(int ring, unsigned submit, unsigned wait) {
    return (int)syscall(SYS_io_uring_enter, ring, submit, wait, wait > 0 ? IORING_ENTER_GETEVENTS : 0, NULL, 0);
}

void martlet_ring_prepare(
    void *entry, uint8_t operation, int file, const void *address, uint32_t length, uint64_t offset, uint32_t flags,
    uint64_t tag) {
    struct io_uring_sqe *sqe = entry;
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = operation;
    sqe->fd = file;
    sqe->addr = (uintptr_t)address;
    sqe->len = length;
    sqe->off = offset;
    // The same bytes as fsync_flags.
    sqe->rw_flags = (int)flags;
    sqe->user_data = tag;
}

int32_t martlet_ring_completion(const void *entry, uint64_t *tag) {
    const struct io_uring_cqe *cqe = entry;
    *tag = cqe->user_data;
    return cqe->res;
}

int martlet_direct_alignment(int file, uint32_t *memory, uint32_t *offset) {
    // struct statx, of which an older system's header lacks the fields: u32 at 152 and 156 (linux/stat.h).
    union {
        unsigned char bytes[256];
        uint32_t words[64];
    } facts;
    memset(&facts, 0, sizeof facts);
    *memory = *offset = 0;
    if (syscall(SYS_statx, file, "", AT_EMPTY_PATH, STATX_DIOALIGN, &facts) < 0) return -1;
    if ((facts.words[0] & STATX_DIOALIGN) != 0) {
        *memory = facts.words[38];
        *offset = facts.words[39];
    }
    return 0;
}
