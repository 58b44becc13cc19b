// What Swift cannot reach of Linux by itself: variadic calls, system calls that glibc does not wrap, and macros.
// Every function returns what the system call returns: -1 with errno set on failure.
#pragma once

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

// _GNU_SOURCE renames the member of fd_set; Swift's own Glibc module has it as it is without, and where the compiler
// happens to see both it refuses them as two different types.
#include <features.h>
#undef __USE_XOPEN
#include <sys/select.h>
#define __USE_XOPEN 1

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/vm_sockets.h>
#include <sched.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

#include "block.h"
#include "counters.h"
#include "files.h"
#include "kvm.h"
#include "network.h"
#include "privileges.h"
#include "ring.h"
#if defined(__x86_64__)
#include "x86_cpuid.h"
#endif

// Constants that Swift cannot import, or finds in two modules.
enum { MARTLET_TIOCSPTLCK = 0x40045431, MARTLET_TIOCGPTPEER = 0x5441, MARTLET_MS_PRIVATE = 1 << 18 };

// openat2(2): opens `path` below `dirfd` under the RESOLVE_* rules in `resolve`.
int martlet_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve);
// open_tree(2), move_mount(2), mount_setattr(2): the new mount API.
int martlet_open_tree(int dirfd, const char *path, unsigned flags);
int martlet_move_mount(int from_fd, const char *from, int to_fd, const char *to, unsigned flags);
int martlet_mount_setattr(int dirfd, const char *path, unsigned flags, uint64_t set, uint64_t clear, uint64_t propagation);
// mount_setattr(2) of a mount that is attached nowhere: its files' ids become those that the user namespace maps them to.
int martlet_mount_idmap(int tree, int user_namespace);
// A user namespace without processes, with these contents of uid_map and gid_map (user_namespaces(7)); -1: errno.
int martlet_user_namespace(const char *users, const char *groups);
// pidfd_open(2), pidfd_send_signal(2).
int martlet_pidfd_open(pid_t pid, unsigned flags);
int martlet_pidfd_send_signal(int pidfd, int signal);
// close_range(2).
int martlet_close_range(unsigned first, unsigned last, unsigned flags);
// ioctl(2) with an integer, or with a pointer to the request's structure.
int martlet_ioctl_int(int fd, unsigned long request, long argument);
int martlet_ioctl_pointer(int fd, unsigned long request, void *argument);
// malloc_trim(3): gives memory that is free back to the kernel.
void martlet_trim_memory(void);
// accept4(2), close-on-exec, without the peer's address.
int martlet_accept(int listener);
// fcntl(2) with an integer argument.
int martlet_fcntl_int(int fd, int command, long argument);
// prctl(2).
int martlet_prctl(int option, unsigned long a2, unsigned long a3, unsigned long a4, unsigned long a5);
// memfd_create(2).
int martlet_memfd_create(const char *name, unsigned flags);
// renameat2(2).
int martlet_renameat2(int old_dir, const char *old_path, int new_dir, const char *new_path, unsigned flags);
// sigabbrev_np(3): KILL for SIGKILL, NULL for none.
const char *martlet_signal_name(int signal);
// gettid(2).
pid_t martlet_gettid(void);

// A signal handler that writes the signal's number, one byte, into a pipe: sets the pipe, then the handler (SA_RESTART).
void martlet_signal_pipe(int fd);
int martlet_forward_signal(int signal);
// A signal handler that does nothing, without SA_RESTART: the signal interrupts a system call, and that is all.
int martlet_ignore_with_handler(int signal);
// tgkill(2) within this process.
int martlet_tgkill(pid_t thread, int signal);

// How a child process starts; see martlet_spawn.
struct martlet_spawn_options {
    const char *path;              // absolute path of the program
    const char *directory;         // working directory; NULL: this process's own
    char *const *argv;             // NULL-terminated
    char *const *envp;             // NULL-terminated
    const int *descriptors;        // the child's descriptor i is a copy of descriptors[i]; -1: /dev/null
    int descriptor_count;
    int new_session;               // setsid(2) when not 0
    int parent_death_signal;       // PR_SET_PDEATHSIG when not 0: sent when the *thread* that spawned ends
    int new_pid_namespace;         // the child is the first process of a pid namespace of its own when not 0
};

// Starts a program with exactly the given descriptors, default signal dispositions and an empty signal mask.
// Returns 0 with *pid and *pidfd set. On failure returns the errno of the step that failed, and *step names it.
int martlet_spawn(const struct martlet_spawn_options *options, pid_t *pid, int *pidfd, const char **step);

// CMSG_* macros as functions: sends or receives one message together with descriptors (SCM_RIGHTS).
// Receiving sets *fd_count; descriptors are close-on-exec. MSG_TRUNC or MSG_CTRUNC gives -1 with EMSGSIZE.
ssize_t martlet_send_descriptors(int socket, const void *bytes, size_t length, const int *fds, int fd_count, int flags);
ssize_t martlet_receive_descriptors(int socket, void *bytes, size_t capacity, int *fds, int fd_capacity, int *fd_count, int flags);
