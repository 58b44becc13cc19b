/* Sets a small Linux system up. See lab.h. */
#define _GNU_SOURCE
#include "lab.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

_Noreturn void power_off(void) {
    sync();
    reboot(RB_POWER_OFF);
    for (;;) pause();
}

_Noreturn void fail(const char *format, ...) {
    int error = errno;
    va_list list;
    va_start(list, format);
    fprintf(stderr, "lab: ");
    vfprintf(stderr, format, list);
    fprintf(stderr, ": %s\n", strerror(error));
    va_end(list);
    power_off();
}

void mount_at(const char *type, const char *source, const char *target, unsigned long flags, const char *data) {
    if (mkdir(target, 0755) && errno != EEXIST && errno != EROFS) fail("mkdir %s", target);
    if (mount(source, target, type, flags, data)) fail("mount %s on %s (%s)", source, target, data ? data : "");
}

char *read_file(const char *path, size_t *size) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return NULL;
    size_t have = 0, room = 4096;
    char *bytes = malloc(room + 1);
    for (;;) {
        if (!bytes) fail("read %s", path);
        ssize_t count = read(file, bytes + have, room - have);
        if (count < 0) fail("read %s", path);
        have += count;
        if (count == 0) break;
        if (have == room) bytes = realloc(bytes, (room *= 2) + 1);
    }
    close(file);
    bytes[have] = 0;
    if (size) *size = have;
    return bytes;
}

void write_text(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, text, strlen(text)) < 0) fail("write \"%s\" to %s", text, path);
    close(file);
}

void load_modules(const char *order, const char *except) {
    char *text = read_file(order, NULL), *rest = text, *line;
    if (!text) fail("open %s", order);
    while ((line = strsep(&rest, "\n"))) {
        char *name = strsep(&line, " "), path[PATH_MAX];
        if (!*name || (except && !strcmp(name, except))) continue;
        snprintf(path, sizeof path, "/modules/%s", name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0) fail("open %s", path);
        if (syscall(SYS_finit_module, file, line ? line : "", 0) && errno != EEXIST) fail("load %s", path);
        close(file);
    }
}

char *parameter(const char *name) {
    char *rest = read_file("/proc/cmdline", NULL), *word;
    while ((word = strsep(&rest, " \n")))
        if (!strncmp(word, name, strlen(name)) && word[strlen(name)] == '=') return word + strlen(name) + 1;
    errno = ENOENT;
    fail("no %s on the command line", name);
}

void mount_kernel_file_systems(void) {
    mount_at("proc", "proc", "/new/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("sysfs", "sysfs", "/new/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("devtmpfs", "devtmpfs", "/new/dev", MS_NOSUID, "mode=755");
    mount_at("devpts", "devpts", "/new/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
    mount_at("tmpfs", "tmpfs", "/new/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
    mount_at("mqueue", "mqueue", "/new/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("tmpfs", "tmpfs", "/new/run", MS_NOSUID | MS_NODEV, "mode=755");
    mount_at("tmpfs", "tmpfs", "/new/run/lock", MS_NOSUID | MS_NODEV, "mode=1777");
    mount_at("cgroup2", "cgroup2", "/new/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("debugfs", "debugfs", "/new/sys/kernel/debug", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    symlink("/proc/self/fd", "/new/dev/fd");
    symlink("/proc/self/fd/0", "/new/dev/stdin");
    symlink("/proc/self/fd/1", "/new/dev/stdout");
    symlink("/proc/self/fd/2", "/new/dev/stderr");
    write_text("/new/sys/fs/cgroup/cgroup.subtree_control", "+cpuset +cpu +io +memory +pids");
}

void enter_root(void) {
    if (chdir("/new") || mount("/new", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/")) fail("enter the root");
    /* As on a host with systemd. */
    if (mount(NULL, "/", NULL, MS_SHARED | MS_REC, NULL)) fail("make / shared");
}

void set_up_system(void) {
    sethostname("lab", 3);
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    if (any < 0 || ioctl(any, SIOCSIFFLAGS, &loopback)) fail("set lo up");
    close(any);
    struct rlimit files = {.rlim_cur = 1024, .rlim_max = 1048576};
    if (setrlimit(RLIMIT_NOFILE, &files)) fail("set the limit of open files");
}
