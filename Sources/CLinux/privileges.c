#include "CLinux.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int martlet_capset(uint64_t effective, uint64_t permitted) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {.effective = (uint32_t)effective, .permitted = (uint32_t)permitted},
        {.effective = (uint32_t)(effective >> 32), .permitted = (uint32_t)(permitted >> 32)},
    };
    return (int)syscall(SYS_capset, &header, data);
}

int martlet_capget(uint64_t *effective, uint64_t *permitted) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0) return -1;
    *effective = data[0].effective | (uint64_t)data[1].effective << 32;
    *permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
    return 0;
}

// A new file system that is mounted nowhere: a descriptor of its root. `options` are pairs of a name and a value, ended by NULL.
static int detached_mount(const char *type, const char *const *options, unsigned attributes) {
    int context = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
    if (context < 0) return -1;
    int mount = -1, result = 0;
    for (; *options && result == 0; options += 2) result = (int)syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, options[0], options[1], 0);
    if (result == 0 && syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        mount = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    int error = errno;
    close(context);
    errno = error;
    return mount;
}

int martlet_new_mount(const char *type, const char *options) {
    char *copy = strdup(options), *rest = copy, *option;
    if (!copy) return -1;
    int context = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), mount = -1, result = context < 0 ? -1 : 0;
    while (result == 0 && (option = strsep(&rest, "\n"))) {
        char *value = strchr(option, '=');
        if (value) *value++ = 0;
        result = (int)syscall(SYS_fsconfig, context, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, option, value, 0);
    }
    if (result == 0 && syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        mount = (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
    int error = errno;
    if (context >= 0) close(context);
    free(copy);
    errno = error;
    return mount;
}

int martlet_huge_file(const char *name, const char *size) {
    const char *const options[] = {"huge", "always", "size", size, "mode", "0700", NULL};
    int mount = detached_mount("tmpfs", options, 0);
    if (mount < 0) return -1;
    int file = openat(mount, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file >= 0 && unlinkat(mount, name, 0) < 0) { close(file); file = -1; }
    int error = errno;
    close(mount);
    errno = error;
    return file;
}

int martlet_empty_directory(void) {
    const char *const options[] = {"size", "4096", "mode", "0555", NULL};
    return detached_mount("tmpfs", options, MOUNT_ATTR_RDONLY);
}

int martlet_new_procfs(void) {
    const char *const options[] = {"subset", "pid", NULL};
    return detached_mount("proc", options, 0);
}

int martlet_kernel_files(const char *type) {
    const char *const options[] = {NULL};
    return detached_mount(type, options, MOUNT_ATTR_RDONLY);
}

int martlet_lock_byte(int file, uint64_t offset) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)offset, .l_len = 1};
    return fcntl(file, F_OFD_SETLK, &lock);
}

int martlet_unshare(int namespaces) { return unshare(namespaces); }

int martlet_enter_root(int tree) {
    if (syscall(SYS_mount, NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return -1;
    if (syscall(SYS_move_mount, tree, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0) return -1;
    // Twice the same directory: the old root comes to lie upon the new one, from where it is taken off (pivot_root(2)).
    if (fchdir(tree) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || syscall(SYS_umount2, ".", 2 /* MNT_DETACH */) < 0) return -1;
    return chdir("/");
}
