/* The first process of the lab: mounts the host's root below an overlay, runs one command there, and sends what it
   writes and how it ends through virtio ports. In C and static: it starts in milliseconds under emulation, where each
   process of a shell script costs a tenth of a second.

   The job is a directory on the host, named on the kernel's command line (lab.job=DIR), with the files
     arguments    the command, each word ended by a NUL byte
     environment  NAME=VALUE, each ended by a NUL byte
     directory    where the command runs
     writable     optional: a directory of the host that the lab may write to
   Ports: lab.stdout and lab.stderr carry the command's output, lab.status the lines "up" when it has started and
   "exit N" when it has ended. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kvm.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void power_off(void) {
    sync();
    reboot(RB_POWER_OFF);
    for (;;) pause();
}

/* Ends the lab without a status, which the host takes for "did not come up". stderr is the kernel's console. */
static void fail(const char *format, ...) {
    int error = errno;
    va_list list;
    va_start(list, format);
    fprintf(stderr, "lab: ");
    vfprintf(stderr, format, list);
    fprintf(stderr, ": %s\n", strerror(error));
    va_end(list);
    power_off();
}

static void place(const char *type, const char *source, const char *target, unsigned long flags, const char *data) {
    if (mkdir(target, 0755) && errno != EEXIST && errno != EROFS) fail("mkdir %s", target);
    if (mount(source, target, type, flags, data)) fail("mount %s on %s (%s)", source, target, data ? data : "");
}

/* The whole file with a NUL byte behind it; NULL where there is none. */
static char *contents(const char *path, size_t *size) {
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

static char *job_file(const char *job, const char *name, size_t *size) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "/host%s/%s", job, name);
    return contents(path, size);
}

/* A NUL-separated list as execve wants it. */
static char **words(char *bytes, size_t size) {
    size_t count = 0;
    for (size_t i = 0; i < size; i++) count += bytes[i] == 0;
    char **list = calloc(count + 1, sizeof *list);
    for (size_t i = 0; i < count; i++, bytes += strlen(bytes) + 1) list[i] = bytes;
    return list;
}

/* Lines of "FILE PARAMETERS", in the order in which they depend on each other. */
static void load_modules(const char *order) {
    char *text = contents(order, NULL), *rest = text, *line;
    if (!text) fail("open %s", order);
    while ((line = strsep(&rest, "\n"))) {
        char *name = strsep(&line, " "), path[PATH_MAX];
        if (!*name) continue;
        snprintf(path, sizeof path, "/modules/%s", name);
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0) fail("open %s", path);
        if (syscall(SYS_finit_module, file, line ? line : "", 0) && errno != EEXIST) fail("load %s", path);
        close(file);
    }
}

/* What follows NAME= on the kernel's command line. */
static char *parameter(const char *name) {
    char *rest = contents("/proc/cmdline", NULL), *word;
    while ((word = strsep(&rest, " \n")))
        if (!strncmp(word, name, strlen(name)) && word[strlen(name)] == '=') return word + strlen(name) + 1;
    errno = ENOENT;
    fail("no %s on the command line", name);
    return NULL;
}

/* The port that QEMU has under this name. */
static int port(const char *name) {
    for (int tries = 0; tries < 5000; tries++, usleep(1000)) {
        DIR *all = opendir("/sys/class/virtio-ports");
        for (struct dirent *entry; all && (entry = readdir(all));) {
            char path[PATH_MAX];
            snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
            char *found = contents(path, NULL);
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
    return -1;
}

static void write_text(const char *path, const char *text) {
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, text, strlen(text)) < 0) fail("write \"%s\" to %s", text, path);
    close(file);
}

static void mount_root(void) {
    place("virtiofs", "root", "/host", MS_RDONLY, NULL);
    place("tmpfs", "changes", "/changes", 0, "size=75%,mode=755");
    if (mkdir("/changes/upper", 0755) || mkdir("/changes/work", 0755)) fail("mkdir in /changes");
    place("overlay", "root", "/new", 0, "lowerdir=/host,upperdir=/changes/upper,workdir=/changes/work");
}

/* A directory of the host, without the overlay. */
static void bind_mount(const char *host, const char *target) {
    char from[PATH_MAX], to[PATH_MAX];
    snprintf(from, sizeof from, "/host%s", host);
    snprintf(to, sizeof to, "/new%s", target);
    if (mkdir(to, 0755) && errno != EEXIST) fail("mkdir %s", to);
    if (mount(from, to, NULL, MS_BIND, NULL)) fail("bind %s to %s", from, to);
}

/* The file systems that a running Debian has, below /new. */
static void mount_the_rest(const char *writable) {
    place("proc", "proc", "/new/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    place("sysfs", "sysfs", "/new/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    place("devtmpfs", "devtmpfs", "/new/dev", MS_NOSUID, "mode=755");
    place("devpts", "devpts", "/new/dev/pts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
    place("tmpfs", "tmpfs", "/new/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
    place("mqueue", "mqueue", "/new/dev/mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    place("tmpfs", "tmpfs", "/new/run", MS_NOSUID | MS_NODEV, "mode=755");
    place("tmpfs", "tmpfs", "/new/run/lock", MS_NOSUID | MS_NODEV, "mode=1777");
    place("cgroup2", "cgroup2", "/new/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    place("debugfs", "debugfs", "/new/sys/kernel/debug", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    symlink("/proc/self/fd", "/new/dev/fd");
    symlink("/proc/self/fd/0", "/new/dev/stdin");
    symlink("/proc/self/fd/1", "/new/dev/stdout");
    symlink("/proc/self/fd/2", "/new/dev/stderr");
    write_text("/new/sys/fs/cgroup/cgroup.subtree_control", "+cpuset +cpu +io +memory +pids");
    bind_mount(parameter("lab.modules"), "/lib/modules");
    place("ext4", "/dev/vda", "/new/lab", MS_NOATIME, NULL);
    if (writable) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "/new%s", writable);
        place("virtiofs", "writable", path, MS_NOSUID | MS_NODEV, NULL);
    }
}

static void enter_root(void) {
    if (chdir("/new") || mount("/new", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/")) fail("enter the root");
    /* As on a host with systemd. */
    if (mount(NULL, "/", NULL, MS_SHARED | MS_REC, NULL)) fail("make / shared");
}

static void set_up_system(void) {
    sethostname("lab", 3);
    int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    if (any < 0 || ioctl(any, SIOCSIFFLAGS, &loopback)) fail("set lo up");
    close(any);
    struct rlimit files = {.rlim_cur = 1024, .rlim_max = 1048576};
    if (setrlimit(RLIMIT_NOFILE, &files)) fail("set the limit of open files");
}

/* Keeps a virtual machine of its own. The kernel patches its scheduler when the first machine of a host is made and when
   the last one goes, and an emulated processor may go on with the breakpoint of a patch that is long done: it and all
   others then turn in a circle. The same goes for the first local APIC that is disabled, as they all are at first. */
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

static pid_t start(char **arguments, char **environment, const char *directory, int output, int errors) {
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child) return child;
    setsid();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(output, 1);
    dup2(errors, 2);
    close_range(3, ~0U, 0);
    if (chdir(directory)) {
        fprintf(stderr, "lab: chdir %s: %s\n", directory, strerror(errno));
        _exit(126);
    }
    environ = environment;
    execvp(arguments[0], arguments);
    fprintf(stderr, "lab: %s: %s\n", arguments[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

/* One stream of the command on its way to the host. */
struct relay {
    int from, to;
    size_t begin, end;
    char bytes[32768];
};

/* Moves what can be moved. Returns 0 when the other end is closed and all is sent. */
static int move(struct relay *relay) {
    for (;;) {
        if (relay->begin == relay->end && relay->from >= 0) {
            ssize_t count = read(relay->from, relay->bytes, sizeof relay->bytes);
            if (count < 0) return 1;
            relay->begin = 0;
            relay->end = count;
            if (count == 0) {
                close(relay->from);
                relay->from = -1;
            }
        }
        if (relay->begin == relay->end) return relay->from >= 0;
        ssize_t count = write(relay->to, relay->bytes + relay->begin, relay->end - relay->begin);
        if (count < 0) return 1;
        relay->begin += count;
    }
}

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Until the command has ended and what it wrote has left; a process that it left behind and that holds its streams
   is waited for half a second, as nobody reads them any more. Returns the command's exit status, as a shell would say it. */
static int follow(pid_t command, int signals, struct relay *relays) {
    int status = -1, open[2] = {1, 1};
    long deadline = 0;
    while (status < 0 || ((open[0] || open[1]) && now() < deadline)) {
        struct pollfd wait[3] = {{.fd = signals, .events = POLLIN}};
        for (int i = 0; i < 2; i++) {
            open[i] = open[i] && move(&relays[i]);
            int sending = relays[i].begin != relays[i].end;
            wait[1 + i].fd = !open[i] ? -1 : sending ? relays[i].to : relays[i].from;
            wait[1 + i].events = sending ? POLLOUT : POLLIN;
            /* What was read must get out, however long the host takes. */
            if (sending && status >= 0) deadline = now() + 500;
        }
        if (status >= 0 && !open[0] && !open[1]) break;
        poll(wait, 3, status < 0 ? -1 : 100);
        struct signalfd_siginfo info;
        if (wait[0].revents && read(signals, &info, sizeof info) < 0 && errno != EAGAIN) fail("read signals");
        int how;
        for (pid_t pid; (pid = waitpid(-1, &how, WNOHANG)) > 0;)
            if (pid == command) {
                status = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
                deadline = now() + 500;
            }
    }
    return status;
}

/* The host has taken a port's last buffer when the port can be written to again. */
static void drain(int port) {
    struct pollfd wait = {.fd = port, .events = POLLOUT};
    while (poll(&wait, 1, -1) < 0 && errno == EINTR) continue;
}

int main(void) {
    place("proc", "proc", "/proc", 0, NULL);
    place("sysfs", "sysfs", "/sys", 0, NULL);
    place("devtmpfs", "devtmpfs", "/dev", 0, NULL);
    load_modules("/modules/order");
    int out = port("lab.stdout"), err = port("lab.stderr"), status = port("lab.status");
    mount_root();
    char *job = parameter("lab.job");
    size_t argument_size = 0, environment_size = 0;
    char *arguments = job_file(job, "arguments", &argument_size);
    char *environment = job_file(job, "environment", &environment_size);
    char *directory = job_file(job, "directory", NULL), *writable = job_file(job, "writable", NULL);
    if (!arguments || !argument_size || !environment || !directory) fail("no job in %s", job);
    mount_the_rest(writable);
    enter_root();
    set_up_system();
    keep_a_machine();
    watch_processors();

    sigset_t child_ended;
    sigemptyset(&child_ended);
    sigaddset(&child_ended, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_ended, NULL);
    int signals = signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK);
    int output[2], errors[2];
    if (signals < 0 || pipe2(output, O_CLOEXEC) || pipe2(errors, O_CLOEXEC)) fail("make pipes");
    pid_t command = start(
        words(arguments, argument_size), words(environment, environment_size), directory, output[1], errors[1]);
    close(output[1]);
    close(errors[1]);
    static struct relay relays[2];
    relays[0] = (struct relay){.from = output[0], .to = out};
    relays[1] = (struct relay){.from = errors[0], .to = err};
    for (int i = 0; i < 2; i++) {
        fcntl(relays[i].from, F_SETFL, O_NONBLOCK);
        fcntl(relays[i].to, F_SETFL, O_NONBLOCK);
    }
    dprintf(status, "up\n");
    int code = follow(command, signals, relays);
    drain(out);
    drain(err);
    sync();
    dprintf(status, "exit %d\n", code);
    drain(status);
    power_off();
}
