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
// Locks one byte of a file for this open file description (F_OFD_SETLK, fcntl(2)); EAGAIN: another has it.
int martlet_lock_byte(int file, uint64_t offset);
// unshare(2): CLONE_NEW*, CLONE_FS.
int martlet_unshare(int namespaces);
// Makes the detached mount that the descriptor is of the only one in this process's mount namespace, which must be its own.
int martlet_enter_root(int tree);
// A new procfs of this process's pid namespace that shows processes alone (subset=pid) and is mounted nowhere: a descriptor
// of its root.
int martlet_new_procfs(void);
// tracefs (`type`: "tracefs") or debugfs, read-only and mounted nowhere: a descriptor of its root.
int martlet_kernel_files(const char *type);
// A new file system that is mounted nowhere, by fsopen(2): a descriptor of its root. `options`, one a line: NAME=VALUE or NAME; the
// device is the option `source`. Each has at most 255 bytes, all together may have any number.
int martlet_new_mount(const char *type, const char *options);
// A file without a name in a tmpfs of its own, of at most `size` bytes (decimal), which gets huge pages where it can. The
// file system is attached nowhere and goes with the file. `name` is what /proc calls it. EINVAL: a kernel without them.
int martlet_huge_file(const char *name, const char *size);
