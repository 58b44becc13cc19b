/* The first process of the QEMU lab: mounts the host's root below an overlay, runs one command there, and sends what it
   writes and how it ends through virtio ports. In C and static: it starts in milliseconds under emulation, where each
   process of a shell script costs a tenth of a second.

   The job (lab.h) is a directory on the host, named on the kernel's command line (lab.job=DIR).
   Ports: lab.stdout and lab.stderr carry the command's output, lab.status the lines "up" when it has started and
   "exit N" when it has ended. */
#define _GNU_SOURCE
#include "lab.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kvm.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* The port that QEMU has under this name. */
static int port(const char *name) {
    for (int tries = 0; tries < 5000; tries++, usleep(1000)) {
        DIR *all = opendir("/sys/class/virtio-ports");
        for (struct dirent *entry; all && (entry = readdir(all));) {
            char path[PATH_MAX];
            snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
            char *found = read_file(path, NULL);
            if (!found || strncmp(found, name, strlen(name)) || found[strlen(name)] != '\n') continue;
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            int file = open(path, O_RDWR | O_CLOEXEC);
            if (file >= 0) {
                closedir(all);
                return file;
            }
        }
        if (all) closedir(all);
    }
    fail("no port %s", name);
}

static void mount_root(void) {
    mount_at("virtiofs", "root", "/host", MS_RDONLY, NULL);
    mount_at("tmpfs", "changes", "/changes", 0, "size=75%,mode=755");
    if (mkdir("/changes/upper", 0755) || mkdir("/changes/work", 0755)) fail("mkdir in /changes");
    mount_at("overlay", "root", "/new", 0, "lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work");
}

/* A directory of the host, without the overlay. */
static void bind_mount(const char *host, const char *target) {
    char from[PATH_MAX], to[PATH_MAX];
    snprintf(from, sizeof from, "/host%s", host);
    snprintf(to, sizeof to, "/new%s", target);
    if (mkdir(to, 0755) && errno != EEXIST) fail("mkdir %s", to);
    if (mount(from, to, NULL, MS_BIND, NULL)) fail("bind %s to %s", from, to);
}

/* The modules, the disk and the directory that comes back, below /new. */
static void mount_the_rest(const char *writable) {
    bind_mount(parameter("lab.modules"), "/lib/modules");
    mount_at("ext4", "/dev/vda", "/new/lab", MS_NOATIME, NULL);
    if (writable) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "/new%s", writable);
        mount_at("virtiofs", "writable", path, MS_NOSUID | MS_NODEV, NULL);
    }
}

/* Keeps a virtual machine of its own. The kernel patches its scheduler when the first machine of a host is made and when
   the last one goes, and an emulated processor may go on with the breakpoint of a patch that is long done: it and all
   others then loop. The same goes for the first local APIC that is disabled, as they all are at first. */
static void keep_a_machine(void) {
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int machine = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
    if (machine < 0 || ioctl(machine, KVM_CREATE_IRQCHIP, 0) || ioctl(machine, KVM_CREATE_VCPU, 0) < 0)
        fail("make a virtual machine");
    fcntl(machine, F_SETFD, FD_CLOEXEC);
    close(kvm);
}

/* As many processors as are watched. */
enum { WATCHED = 64 };

/* Counts on one processor, and looks whether the others still do; when one has not for ten looks, resets the machine. */
_Noreturn static void watch_from(int own, int processors, volatile unsigned *counts, int log, int trigger) {
    enum { PAUSE = 3, LOOKS = 10 };
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(own, &one);
    struct sched_param before_all = {.sched_priority = 1};
    if (sched_setaffinity(0, sizeof one, &one) || sched_setscheduler(0, SCHED_FIFO, &before_all)) _exit(1);
    unsigned seen[WATCHED] = {0}, same[WATCHED] = {0};
    for (;; sleep(PAUSE)) {
        counts[own]++;
        for (int other = 0; other < processors; other++) {
            same[other] = counts[other] == seen[other] ? same[other] + 1 : 0;
            seen[other] = counts[other];
            if (same[other] < LOOKS) continue;
            /* Not dprintf, which seeks first. The end comes at once: an orderly one would wait for the processor too. */
            char line[80];
            int size = snprintf(
                line, sizeof line, "<0>lab: processor %d has taken no interrupts for %d s", other, LOOKS * PAUSE);
            if (write(log, line, size) < 0 || write(trigger, "b", 1) < 0) _exit(1);
        }
    }
}

/* An emulated processor may cease to take interrupts, and whoever waits for it then waits for ever. So each has a process
   that watches the others. The lab ends without a status. */
static void watch_processors(void) {
    int processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (processors > WATCHED) processors = WATCHED;
    volatile unsigned *counts =
        mmap(NULL, WATCHED * sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int trigger = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC), log = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    if (counts == MAP_FAILED || trigger < 0 || log < 0) fail("watch the processors");
    for (int own = 0; own < processors; own++) {
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (!child) watch_from(own, processors, counts, log, trigger);
    }
    close(trigger);
    close(log);
}

static ssize_t send_to_port(const struct sink *sink, const char *bytes, size_t count) {
    return write(sink->ready, bytes, count);
}

/* A command's stream that goes to a port. */
static struct sink port_sink(int port) {
    fcntl(port, F_SETFL, O_NONBLOCK);
    return (struct sink){.send = send_to_port, .ready = port};
}

/* The host has taken a port's last buffer when the port can be written to again. */
static void drain(int port) {
    struct pollfd wait = {.fd = port, .events = POLLOUT};
    while (poll(&wait, 1, -1) < 0 && errno == EINTR) continue;
}

static int status;

static void report_start(void) { dprintf(status, "up\n"); }

int main(void) {
    mount_at("proc", "proc", "/proc", 0, NULL);
    mount_at("sysfs", "sysfs", "/sys", 0, NULL);
    mount_at("devtmpfs", "devtmpfs", "/dev", 0, NULL);
    load_modules("/modules/order", NULL);
    int out = port("lab.stdout"), err = port("lab.stderr");
    status = port("lab.status");
    mount_root();
    char directory[PATH_MAX];
    snprintf(directory, sizeof directory, "/host%s", parameter("lab.job"));
    struct job job = read_job(directory);
    mount_kernel_file_systems();
    mount_the_rest(job.writable);
    enter_root();
    set_up_system();
    keep_a_machine();
    watch_processors();
    int code = run_command(&job, (struct sink[]){port_sink(out), port_sink(err)}, report_start);
    drain(out);
    drain(err);
    sync();
    dprintf(status, "exit %d\n", code);
    drain(status);
    power_off();
}
