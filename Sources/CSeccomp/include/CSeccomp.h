// libseccomp, by plain types only: its own header brings headers of the system's along, which must be seen in one way.
#pragma once

#include <stdint.h>

// A condition on one argument of a system call; `operation` is an index in the order of SCMP_CMP_NE, LT, LE, EQ, GE, GT, MASKED_EQ.
struct martlet_seccomp_condition {
    unsigned argument;
    int operation;
    uint64_t value;
    uint64_t second;
};

// All that answer an int: 0, or a negative errno (seccomp_init(3) and the pages it names).

// A filter whose default is `action` (SECCOMP_RET_*, with its data); NULL when there is no memory or no such action.
void *martlet_seccomp_new(uint32_t action);
void martlet_seccomp_free(void *filter);
// By libseccomp's name: `x86_64`, `aarch64`. -EINVAL: unknown. One that is there already is no error.
int martlet_seccomp_add_architecture(void *filter, const char *name);
// Makes the filter a tree, which the kernel walks faster than a list.
int martlet_seccomp_optimize(void *filter);
// 1 and *number: the system call is known; 0: it is not.
int martlet_seccomp_resolve(const char *name, int *number);
// A system call's number on an architecture, by libseccomp's names; negative where there is none.
int martlet_seccomp_number(const char *architecture, const char *name);
int martlet_seccomp_add_rule(void *filter, uint32_t action, int number, unsigned count, const struct martlet_seccomp_condition *conditions);
// Writes the filter's instructions (struct sock_filter) to a descriptor.
int martlet_seccomp_export(void *filter, int descriptor);
// seccomp(2), SECCOMP_SET_MODE_FILTER, with `count` instructions; -1 and errno.
int martlet_seccomp_load(unsigned flags, const uint64_t *instructions, unsigned short count);
// Has this process end, with a line on standard error that names system call and thread, when a filter answers a call with
// SECCOMP_RET_TRAP. `code` is its exit code.
void martlet_seccomp_end_on_trap(int code);
