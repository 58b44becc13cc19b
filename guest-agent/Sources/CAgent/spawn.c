// The way from clone to exec. The child is a copy of one thread of a process with many: between the two it may call
// only what is safe in a signal handler.
#define _GNU_SOURCE
#include "CAgent.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_DESCRIPTORS 16

// Takes every descriptor above the child's own target numbers first, so that none is overwritten before it was copied.
static int move_descriptors(const struct martlet_agent_spawn *options, int *executable) {
    int copies[MAX_DESCRIPTORS];
    int floor = MAX_DESCRIPTORS + 1;
    for (int i = 0; i < options->descriptor_count; i++) {
        copies[i] = fcntl(options->descriptors[i], F_DUPFD_CLOEXEC, floor);
        if (copies[i] < 0) return -1;
    }
    *executable = fcntl(options->executable, F_DUPFD_CLOEXEC, floor);
    if (*executable < 0) return -1;
    for (int i = 0; i < options->descriptor_count; i++)
        if (dup2(copies[i], i) < 0) return -1;
    return (int)syscall(SYS_close_range, options->descriptor_count, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */);
}

static int write_map(pid_t child, const char *name, const char *map) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)child, name);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0) return errno;
    // The kernel takes a map in one write.
    int error = write(file, map, strlen(map)) == (ssize_t)strlen(map) ? 0 : errno;
    close(file);
    return error;
}

// In the child: waits until its ids are mapped. Until then it runs as the overflow user, and executing a program as that
// user drops the capabilities.
static void await_maps(int ready) {
    char byte;
    if (read(ready, &byte, 1) != 1 || martlet_agent_become_root() < 0) _exit(127);
}

static void run_child(const struct martlet_agent_spawn *options) {
    // The kernel's own call: glibc's refuses the two signals that it keeps for itself, which may be ignored too. All zero is
    // SIG_DFL without flags (struct kernel_sigaction: handler, flags, restorer, mask).
    unsigned long standard[4] = {0};
    for (int number = 1; number < NSIG; number++) syscall(SYS_rt_sigaction, number, standard, NULL, sizeof(unsigned long));
    int executable;
    if (move_descriptors(options, &executable) < 0) return;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    syscall(SYS_execveat, executable, "", options->argv, options->envp, AT_EMPTY_PATH);
}

int martlet_agent_go_on_in_new_process(int *pidfd) {
    struct clone_args arguments;
    memset(&arguments, 0, sizeof arguments);
    // Its parent gets the signal that it gets for the caller's end.
    arguments.flags = CLONE_PARENT | CLONE_PIDFD;
    arguments.pidfd = (uint64_t)(uintptr_t)pidfd;
    return (int)syscall(SYS_clone3, &arguments, sizeof arguments);
}

int martlet_agent_spawn(const struct martlet_agent_spawn *options, int32_t *pid, int *pidfd, const char **step) {
    *step = "spawn";
    if (options->descriptor_count < 0 || options->descriptor_count > MAX_DESCRIPTORS) return EINVAL;
    int descriptor = -1;
    struct clone_args arguments;
    memset(&arguments, 0, sizeof arguments);
    arguments.flags = options->namespaces | CLONE_PIDFD;
    arguments.pidfd = (uint64_t)(uintptr_t)&descriptor;
    arguments.exit_signal = SIGCHLD;
    if (options->cgroup >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)options->cgroup;
    }
    // No signal handler may run in the child before the dispositions are reset.
    int ready[2] = {-1, -1};
    const int maps = (options->namespaces & CLONE_NEWUSER) != 0;
    if (maps && pipe2(ready, O_CLOEXEC) < 0) {
        *step = "pipe";
        return errno;
    }
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = 0;
    pid_t child = -1;
    // The pid namespace for children is a property of the thread, so no process in between is needed.
    if (options->pid_namespace >= 0 && setns(options->pid_namespace, CLONE_NEWPID) < 0) {
        *step = "setns pid";
        error = errno;
    } else {
        child = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
        if (child == 0) {
            if (maps) {
                close(ready[1]);
                await_maps(ready[0]);
            }
            run_child(options);
            _exit(127);
        }
        if (child < 0) {
            *step = "clone3";
            error = errno;
        }
        if (options->pid_namespace >= 0) setns(options->own_pid_namespace, CLONE_NEWPID);
    }
    if (error == 0 && maps) {
        *step = "write uid_map";
        error = write_map(child, "uid_map", options->user_map);
        if (error == 0) {
            *step = "write gid_map";
            error = write_map(child, "gid_map", options->group_map);
        }
        if (error == 0 && write(ready[1], "", 1) != 1) error = errno;
        // Closing the pipe ends the child.
        if (error != 0) close(descriptor);
    }
    if (maps) {
        close(ready[0]);
        close(ready[1]);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) return error;
    *pid = child;
    *pidfd = descriptor;
    return 0;
}
