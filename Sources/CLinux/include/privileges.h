// Giving up privileges: system calls that glibc does not wrap.
#pragma once

#include <linux/capability.h>
#include <stdint.h>

// capset(2): the calling thread's effective and permitted capabilities, one bit each; nothing inheritable.
int martlet_capset(uint64_t effective, uint64_t permitted);
// capget(2) of the calling thread.
int martlet_capget(uint64_t *effective, uint64_t *permitted);
// A new empty tmpfs that is mounted nowhere, read-only: a descriptor of its root.
int martlet_empty_directory(void);
// Gives this process a mount namespace of its own, in which there is only the detached mount that the descriptor is of.
int martlet_enter_root(int tree);
// A file without a name in a tmpfs of its own, of at most `size` bytes (decimal), which gets huge pages where it can. The
// file system is attached nowhere and goes with the file. `name` is what /proc calls it. EINVAL: a kernel without them.
int martlet_huge_file(const char *name, const char *size);
