#include "CLinux.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

int martlet_openat2(int dirfd, const char *path, uint64_t flags, uint64_t mode, uint64_t resolve) {
    struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
    return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof how);
}
int martlet_open_tree(int dirfd, const char *path, unsigned flags) {
    return (int)syscall(SYS_open_tree, dirfd, path, flags);
}
int martlet_move_mount(int from_fd, const char *from, int to_fd, const char *to, unsigned flags) {
    return (int)syscall(SYS_move_mount, from_fd, from, to_fd, to, flags);
}
int martlet_mount_setattr(int dirfd, const char *path, unsigned flags, uint64_t set, uint64_t clear, uint64_t propagation) {
    struct mount_attr attributes = {.attr_set = set, .attr_clr = clear, .propagation = propagation};
    return (int)syscall(SYS_mount_setattr, dirfd, path, flags, &attributes, sizeof attributes);
}
int martlet_pidfd_open(pid_t pid, unsigned flags) { return (int)syscall(SYS_pidfd_open, pid, flags); }
int martlet_pidfd_send_signal(int pidfd, int signal) { return (int)syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0); }
int martlet_close_range(unsigned first, unsigned last, unsigned flags) {
    return (int)syscall(SYS_close_range, first, last, flags);
}
int martlet_ioctl_int(int fd, unsigned long request, long argument) { return ioctl(fd, request, argument); }
int martlet_ioctl_pointer(int fd, unsigned long request, void *argument) { return ioctl(fd, request, argument); }
int martlet_accept(int listener) { return accept4(listener, NULL, NULL, SOCK_CLOEXEC); }
int martlet_fcntl_int(int fd, int command, long argument) { return fcntl(fd, command, argument); }
int martlet_prctl(int option, unsigned long a2, unsigned long a3, unsigned long a4, unsigned long a5) {
    return prctl(option, a2, a3, a4, a5);
}
int martlet_memfd_create(const char *name, unsigned flags) { return memfd_create(name, flags); }
int martlet_renameat2(int old_dir, const char *old_path, int new_dir, const char *new_path, unsigned flags) {
    return renameat2(old_dir, old_path, new_dir, new_path, flags);
}
void martlet_trim_memory(void) { malloc_trim(0); }
pid_t martlet_gettid(void) { return gettid(); }

// Runs in the child between fork and exec: async-signal-safe calls only. Returns the name of the step that failed.
static const char *become(const struct martlet_spawn_options *o, int report, int *scratch) {
    if (o->new_session && setsid() < 0) return "setsid";
    if (o->parent_death_signal) {
        if (prctl(PR_SET_PDEATHSIG, o->parent_death_signal, 0, 0, 0) < 0) return "prctl PR_SET_PDEATHSIG";
        // The parent, which reads the report, may have ended before. From another pid namespace it can't be asked for.
        struct pollfd item = {.fd = report};
        if (poll(&item, 1, 0) > 0 && item.revents & POLLERR) { errno = ESRCH; return "parent"; }
    }
    for (int s = 1; s < NSIG; s++) {
        struct sigaction action = {.sa_handler = SIG_DFL};
        sigaction(s, &action, NULL);  // fails for SIGKILL and SIGSTOP, which are default already
    }
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    // First lift every source above the targets, so that no dup2 below overwrites one still needed.
    for (int i = 0; i < o->descriptor_count; i++) {
        int from = o->descriptors[i];
        if (from < 0 && (from = open("/dev/null", O_RDWR | O_CLOEXEC)) < 0) return "open /dev/null";
        if ((scratch[i] = fcntl(from, F_DUPFD_CLOEXEC, o->descriptor_count + 1)) < 0) return "dup";
    }
    for (int i = 0; i < o->descriptor_count; i++)
        if (dup2(scratch[i], i) < 0) return "dup2";
    if (o->directory && chdir(o->directory) < 0) return "chdir";
    return NULL;
}

int martlet_spawn(const struct martlet_spawn_options *o, pid_t *pid, int *pidfd, const char **step) {
    struct failure { int error; char step[32]; } failure = {0};
    static _Thread_local char step_copy[32];
    int report[2];
    *step = "pipe";
    if (pipe2(report, O_CLOEXEC) < 0) return errno;
    int *scratch = calloc((size_t)o->descriptor_count + 1, sizeof *scratch);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);  // no handler of ours may run in the child
    *step = "fork";
    pid_t child = -1;
    // glibc's fork() can't make a namespace. The child calls nothing that needs what else it does.
    if (scratch) child = o->new_pid_namespace ? (pid_t)syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, NULL, NULL, NULL, NULL) : fork();
    int error = errno;
    if (child == 0) {
        // The report pipe must not sit where a descriptor of the child goes.
        int pipe_fd = fcntl(report[1], F_DUPFD_CLOEXEC, o->descriptor_count + 1);
        close(report[0]);
        const char *failed = become(o, pipe_fd, scratch);
        if (!failed) {
            // Anything else that is open closes at exec, whoever forgot the flag. pipe_fd included.
            close_range((unsigned)o->descriptor_count, ~0U, CLOSE_RANGE_CLOEXEC);
            execve(o->path, o->argv, o->envp);
            failed = "exec";
        }
        failure.error = errno;
        strncpy(failure.step, failed, sizeof failure.step - 1);
        if (write(pipe_fd, &failure, sizeof failure) < 0) _exit(126);
        _exit(127);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    free(scratch);
    close(report[1]);
    if (child < 0) { close(report[0]); return error; }
    ssize_t n;
    do n = read(report[0], &failure, sizeof failure); while (n < 0 && errno == EINTR);
    close(report[0]);
    if (n > 0) {
        waitpid(child, NULL, 0);
        memcpy(step_copy, failure.step, sizeof step_copy);
        *step = step_copy;
        return failure.error;
    }
    *pid = child;
    *step = "pidfd_open";
    *pidfd = martlet_pidfd_open(child, 0);
    if (*pidfd < 0) {
        error = errno;
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        return error;
    }
    return 0;
}

ssize_t martlet_send_descriptors(int socket, const void *bytes, size_t length, const int *fds, int fd_count, int flags) {
    union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * 253)]; } control;
    struct iovec part = {.iov_base = (void *)bytes, .iov_len = length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count < 0 || fd_count > 253) { errno = EINVAL; return -1; }
    if (fd_count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fd_count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fd_count);
        memcpy(CMSG_DATA(header), fds, sizeof(int) * (size_t)fd_count);
    }
    ssize_t n;
    do n = sendmsg(socket, &message, flags | MSG_NOSIGNAL); while (n < 0 && errno == EINTR);
    return n;
}

ssize_t martlet_receive_descriptors(int socket, void *bytes, size_t capacity, int *fds, int fd_capacity, int *fd_count, int flags) {
    union { struct cmsghdr align; char bytes[CMSG_SPACE(sizeof(int) * 253)]; } control;
    struct iovec part = {.iov_base = bytes, .iov_len = capacity};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    *fd_count = 0;
    ssize_t n;
    do n = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC); while (n < 0 && errno == EINTR);
    if (n < 0) return n;
    int lost = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS) continue;
        int count = (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + sizeof(int) * (size_t)i, sizeof fd);
            if (*fd_count < fd_capacity && !lost) fds[(*fd_count)++] = fd;
            else { close(fd); lost = 1; }
        }
    }
    if (lost) {
        while (*fd_count > 0) close(fds[--(*fd_count)]);
        errno = EMSGSIZE;
        return -1;
    }
    return n;
}
const char *martlet_signal_name(int signal) { return sigabbrev_np(signal); }

static volatile int signal_pipe = -1;
static void write_signal(int signal) {
    int saved = errno;
    unsigned char number = (unsigned char)signal;
    if (write(signal_pipe, &number, 1) < 0) {}  // a full pipe: as many signals are waiting already
    errno = saved;
}
void martlet_signal_pipe(int fd) { signal_pipe = fd; }
int martlet_forward_signal(int signal) {
    struct sigaction action = {.sa_handler = write_signal, .sa_flags = SA_RESTART};
    return sigaction(signal, &action, NULL);
}

static void no_signal(int signal) { (void)signal; }
int martlet_ignore_with_handler(int signal) {
    struct sigaction action = {.sa_handler = no_signal};
    return sigaction(signal, &action, NULL);
}
int martlet_tgkill(pid_t thread, int signal) { return (int)syscall(SYS_tgkill, getpid(), thread, signal); }
