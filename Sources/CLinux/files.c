#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "files.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdlib.h>

static int get_capabilities(struct __user_cap_data_struct data[2]) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    return (int)syscall(SYS_capget, &header, data);
}

static int put_effective(struct __user_cap_data_struct data[2], uint64_t effective) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    data[0].effective = (uint32_t)effective & data[0].permitted;
    data[1].effective = (uint32_t)(effective >> 32) & data[1].permitted;
    return (int)syscall(SYS_capset, &header, data);
}

int martlet_assume_identity(uid_t uid, gid_t gid, uint64_t keep) {
    gid_t group = getegid();
    uid_t user = geteuid();
    // The group first: without the user's capabilities it could not change any more.
    if (syscall(SYS_setresgid, -1, gid, -1) < 0) return -1;
    if (syscall(SYS_setresuid, -1, uid, -1) < 0) {
        int error = errno;
        if (syscall(SYS_setresgid, -1, group, -1) < 0) abort();
        errno = error;
        return -1;
    }
    if (uid == 0) return 0;
    // Leaving user 0 emptied the effective set; the permitted one is still whole.
    struct __user_cap_data_struct data[2];
    if (get_capabilities(data) < 0 || put_effective(data, keep) < 0) {
        int error = errno;
        martlet_resume_identity(user, group);
        errno = error;
        return -1;
    }
    return 0;
}

void martlet_resume_identity(uid_t uid, gid_t gid) {
    // Coming back to user 0 makes every permitted capability effective again.
    if (syscall(SYS_setresuid, -1, uid, -1) < 0) abort();
    if (syscall(SYS_setresgid, -1, gid, -1) < 0) abort();
}

int martlet_drop_effective(uint64_t mask, uint64_t *before) {
    struct __user_cap_data_struct data[2];
    if (get_capabilities(data) < 0) return -1;
    *before = (uint64_t)data[1].effective << 32 | data[0].effective;
    return put_effective(data, *before & ~mask);
}

void martlet_set_effective(uint64_t effective) {
    struct __user_cap_data_struct data[2];
    if (get_capabilities(data) < 0 || put_effective(data, effective) < 0) abort();
}

int martlet_openat(int dirfd, const char *path, int flags) { return openat(dirfd, path, flags); }

const int martlet_O_PATH = O_PATH, martlet_O_DIRECT = O_DIRECT, martlet_O_NOATIME = O_NOATIME, martlet_O_TMPFILE = O_TMPFILE;
const int martlet_AT_EMPTY_PATH = AT_EMPTY_PATH, martlet_AT_NO_AUTOMOUNT = AT_NO_AUTOMOUNT;
const int martlet_SEEK_DATA = SEEK_DATA, martlet_SEEK_HOLE = SEEK_HOLE;

int martlet_statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *status) {
    return statx(dirfd, path, flags, mask, status);
}
ssize_t martlet_getdents(int fd, void *bytes, size_t length) { return getdents64(fd, bytes, length); }
ssize_t martlet_append(int fd, const struct iovec *parts, int count) { return pwritev2(fd, parts, count, 0, RWF_APPEND); }
int martlet_fallocate(int fd, int mode, off_t offset, off_t length) { return fallocate(fd, mode, offset, length); }
ssize_t martlet_copy_file_range(int from, int64_t *from_offset, int to, int64_t *to_offset, size_t length) {
    return copy_file_range(from, from_offset, to, to_offset, length, 0);
}
int martlet_syncfs(int fd) { return syncfs(fd); }
ssize_t martlet_fgetxattr(int fd, const char *name, void *value, size_t size) { return fgetxattr(fd, name, value, size); }
ssize_t martlet_flistxattr(int fd, char *names, size_t size) { return flistxattr(fd, names, size); }
int martlet_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags) {
    return fsetxattr(fd, name, value, size, flags);
}
int martlet_fremovexattr(int fd, const char *name) { return fremovexattr(fd, name); }
