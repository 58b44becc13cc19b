#include "CLinux.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

int martlet_mount_idmap(int tree, int user_namespace) {
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)user_namespace};
    return (int)syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes);
}

static int open_of(pid_t process, const char *name, int flags) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", process, name);
    return open(path, flags | O_CLOEXEC);
}

// The kernel takes a map in one write.
static int write_map(pid_t process, const char *name, const char *map) {
    int file = open_of(process, name, O_WRONLY);
    if (file < 0) return -1;
    size_t length = strlen(map);
    ssize_t written = write(file, map, length);
    int error = written < 0 ? errno : EINVAL;
    close(file);
    errno = error;
    return length > 0 && written == (ssize_t)length ? 0 : -1;
}

int martlet_user_namespace(const char *users, const char *groups) {
    pid_t parent = getpid();
    // No signal at its end: nobody else waits for it. As fork(2), but in a process with threads: the child makes system calls alone.
    pid_t child = (pid_t)syscall(SYS_clone, CLONE_NEWUSER, NULL, NULL, NULL, 0UL);
    if (child < 0) return -1;
    if (child == 0) {
        syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0UL, 0UL, 0UL);
        // Waits to be killed. The parent may have ended before it said so.
        while ((pid_t)syscall(SYS_getppid) == parent) syscall(SYS_ppoll, NULL, 0, NULL, NULL, 8);
        syscall(SYS_exit_group, 0);
        __builtin_unreachable();
    }
    int result = write_map(child, "uid_map", users);
    if (result == 0) result = write_map(child, "gid_map", groups);
    int namespace = result == 0 ? open_of(child, "ns/user", O_RDONLY) : -1;
    int error = errno;
    kill(child, SIGKILL);
    while (waitpid(child, NULL, __WALL) < 0 && errno == EINTR) {}
    errno = error;
    return namespace;
}
