// What the file server needs of Linux: the FUSE wire structures, and identity per thread.
#pragma once

#include <linux/fuse.h>
#include <linux/stat.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

// Numbers that need _GNU_SOURCE, which Swift's Glibc is built without.
extern const int martlet_O_PATH, martlet_O_DIRECT, martlet_O_NOATIME, martlet_O_TMPFILE;
extern const int martlet_AT_EMPTY_PATH, martlet_AT_NO_AUTOMOUNT;
extern const int martlet_SEEK_DATA, martlet_SEEK_HOLE;

// Takes the effective group and user of this thread only (glibc's wrappers change every thread), and keeps just
// the capabilities in `keep` effective. Saved and real ids stay, so that the way back is open.
// Returns -1 with errno set, and nothing changed, when it may not.
int martlet_assume_identity(uid_t uid, gid_t gid, uint64_t keep);
// The way back from martlet_assume_identity. Ends the process if that fails: it must not go on as somebody else.
void martlet_resume_identity(uid_t uid, gid_t gid);
// Takes the capabilities in `mask` out of this thread's effective set; *before gets the set as it was.
int martlet_drop_effective(uint64_t mask, uint64_t *before);
// Sets this thread's effective capabilities. Ends the process if that fails.
void martlet_set_effective(uint64_t effective);
// openat(2) with its three fixed arguments.
int martlet_openat(int dirfd, const char *path, int flags);

// System calls whose wrappers need _GNU_SOURCE.
int martlet_statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *status);
ssize_t martlet_getdents(int fd, void *bytes, size_t length);
// pwritev2(2) that appends, whatever the file's flags say (RWF_APPEND).
ssize_t martlet_append(int fd, const struct iovec *parts, int count);
int martlet_fallocate(int fd, int mode, off_t offset, off_t length);
ssize_t martlet_copy_file_range(int from, int64_t *from_offset, int to, int64_t *to_offset, size_t length);
int martlet_syncfs(int fd);
ssize_t martlet_fgetxattr(int fd, const char *name, void *value, size_t size);
ssize_t martlet_flistxattr(int fd, char *names, size_t size);
int martlet_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
int martlet_fremovexattr(int fd, const char *name);
