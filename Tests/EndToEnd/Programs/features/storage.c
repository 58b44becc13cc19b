// Memory, swap and file systems.
#include "features.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static void memfd(void) {
    int fd = must(memfd_create("features", MFD_ALLOW_SEALING), "memfd_create");
    must(ftruncate(fd, 4096), "ftruncate");
    must(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), "F_ADD_SEALS");
    check(ftruncate(fd, 0) == -1 && errno == EPERM, "the seal does not hold");
}

static void user_faultfd(void) {
    int fd = must(syscall(SYS_userfaultfd, O_CLOEXEC), "userfaultfd");
    struct uffdio_api api = {.api = UFFD_API};
    must(ioctl(fd, UFFDIO_API, &api), "UFFDIO_API");
    char *page = must(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), "mmap");
    struct uffdio_register range = {{(uintptr_t)page, 4096}, UFFDIO_REGISTER_MODE_MISSING, 0};
    must(ioctl(fd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
    char source[4096] __attribute__((aligned(4096))) = "filled";
    struct uffdio_copy copy = {.dst = (uintptr_t)page, .src = (uintptr_t)source, .len = 4096};
    must(ioctl(fd, UFFDIO_COPY, &copy), "UFFDIO_COPY");
    check(!strcmp(page, "filled"), "the page was not filled");
}

static void hugetlb(void) {
    const char *knob = WORK "/proc/sys/vm/nr_hugepages";
    char before[32];
    snprintf(before, sizeof before, "%s", read_file(knob));
    char one_more[32];
    snprintf(one_more, sizeof one_more, "%d", atoi(before) + 1);
    write_file(knob, one_more);
    char *page = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    int error = errno;
    if (page != MAP_FAILED) {
        memset(page, 1, 2 << 20);
        munmap(page, 2 << 20);
    }
    write_file(knob, before);
    if (page == MAP_FAILED) fail(error, "mmap MAP_HUGETLB");
    mkdir(WORK "/huge", 0755);
    must(mount("huge", WORK "/huge", "hugetlbfs", 0, NULL), "mount hugetlbfs");
}

// Makes a file a block device. Returns -1 when the container may not use loop devices (EPERM).
static int loop_device(const char *file, int size, char path[64]) {
    must(mknod(WORK "/loop-control", S_IFCHR | 0600, makedev(10, 237)), "mknod loop-control");
    int control = open(WORK "/loop-control", O_RDWR);
    if (control == -1 && errno == EPERM) return -1;
    must(control, "open loop-control");
    int number = must(ioctl(control, LOOP_CTL_GET_FREE), "LOOP_CTL_GET_FREE");
    snprintf(path, 64, WORK "/loop%d", number);
    must(mknod(path, S_IFBLK | 0600, makedev(7, number)), "mknod %s", path);
    int backing = must(open(file, O_RDWR | O_CREAT, 0600), "open %s", file);
    must(ftruncate(backing, size), "ftruncate");
    int fd = open(path, O_RDWR);
    if (fd == -1 && errno == EPERM) return -1;
    must(fd, "open %s", path);
    struct loop_config config = {.fd = backing, .info = {.lo_flags = LO_FLAGS_AUTOCLEAR}};
    must(ioctl(fd, LOOP_CONFIGURE, &config), "LOOP_CONFIGURE");
    close(backing);
    close(control);
    return fd;
}

static void swap(void) {
    enum { pages = 512, page = 4096 };
    must(access(WORK "/proc/swaps", F_OK), "/proc/swaps");
    char path[64];
    int device = loop_device(WORK "/swapfile", pages * page, path);
    if (device == -1) return;
    // union swap_header (include/linux/swap.h): version 1 and the last page at 1024, the magic at the end of the page.
    uint32_t info[] = {1, pages - 1, 0};
    must(pwrite(device, info, sizeof info, 1024), "write swap header");
    must(pwrite(device, "SWAPSPACE2", 10, page - 10), "write swap header");
    must(fsync(device), "fsync");
    must(swapon(path, 0), "swapon");
    must(swapoff(path), "swapoff");
}

static void overlay(void) {
    mkdir(WORK "/lower", 0755), mkdir(WORK "/upper", 0755), mkdir(WORK "/scratch", 0755), mkdir(WORK "/merged", 0755);
    write_file(WORK "/lower/file", "lower");
    must(mount("overlay", WORK "/merged", "overlay", 0, "lowerdir=" WORK "/lower,upperdir=" WORK "/upper,workdir=" WORK "/scratch"),
        "mount overlay");
    write_file(WORK "/merged/file", "UPPER");
    check(!strcmp(read_file(WORK "/lower/file"), "lower"), "the lower file was changed");
    must(unlink(WORK "/merged/file"), "unlink");
    struct stat whiteout;
    must(stat(WORK "/upper/file", &whiteout), "stat whiteout");
    check(S_ISCHR(whiteout.st_mode), "no whiteout in the upper layer");
}

static void filesystem(const char *name) {
    char line[64];
    snprintf(line, sizeof line, "\t%s\n", name);
    check(strstr(read_file("/proc/filesystems"), line), "not in /proc/filesystems");
}
static void erofs(void) { filesystem("erofs"); }
static void ext4(void) { filesystem("ext4"); }
static void virtiofs(void) { filesystem("virtiofs"); }

const struct feature storage_features[] = {
    {"memfd", memfd},
    {"userfaultfd", user_faultfd},
    {"hugetlb", hugetlb},
    {"swap", swap},
    {"overlay", overlay},
    {"erofs", erofs},
    {"ext4", ext4},
    {"virtiofs", virtiofs},
    {0},
};
