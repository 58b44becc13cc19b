#define _GNU_SOURCE
#include "CProbe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static void fail_on_trap(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)info;
    ((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = -EPERM;
}

void probe_fail_on_trap(void) {
    struct sigaction action = {.sa_sigaction = fail_on_trap, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSYS, &action, NULL);
}

static int tried;

// Not by stdio, which asks for more system calls than a jail may have.
static void say(const char *text) {
    if (write(1, text, strlen(text)) < 0) _exit(3);
}

static void report(const char *name, int succeeded) {
    tried++;
    if (!succeeded) return;
    say(name);
    say("\n");
}

#define TRY(name, expression) report(name, (long)(expression) >= 0)
#define CALL(name, ...) TRY(#name, syscall(SYS_##name, ##__VA_ARGS__))

static int opens(const char *path) { return open(path, O_RDONLY | O_CLOEXEC); }

// A path of the host from each descriptor that this process has.
static int from_descriptors(const char *path) {
    for (int fd = 0; fd < 1024; fd++)
        if (openat(fd, path, O_RDONLY | O_CLOEXEC) >= 0) return 0;
    return -1;
}

static int socket_of(int family, int type) { return socket(family, type | SOCK_CLOEXEC, 0); }

static int child(long pid) {
    if (pid == 0) _exit(0);
    if (pid > 0) waitpid((pid_t)pid, NULL, 0);
    return (int)pid;
}

static int becomes_executable(int from_the_start) {
    int prot = PROT_READ | PROT_WRITE | (from_the_start ? PROT_EXEC : 0);
    void *page = mmap(NULL, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return -1;
    return from_the_start ? 0 : mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

static int abstract(int binds) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "\0martlet-probe"};
    int fd = socket_of(AF_UNIX, SOCK_STREAM);
    if (fd < 0) return -1;
    return binds ? bind(fd, (struct sockaddr *)&address, sizeof address) : connect(fd, (struct sockaddr *)&address, sizeof address);
}

static int gains(int capability) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    data[capability / 32].permitted = data[capability / 32].effective = 1u << capability % 32;
    return (int)syscall(SYS_capset, &header, data);
}

static int raises_limit(void) {
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    return setrlimit(RLIMIT_CORE, &limit);
}

static int climbs(void) {
    if (mkdir("/out", 0700) < 0 || chroot("/out") < 0) return -1;
    return opens("../../../../etc/passwd");
}

static void files(void) {
    TRY("open /etc/shadow", opens("/etc/shadow"));
    TRY("open /proc/1/root", opens("/proc/1/root/etc"));
    TRY("open /proc/self/environ", opens("/proc/self/environ"));
    TRY("open /proc/sysrq-trigger", open("/proc/sysrq-trigger", O_WRONLY));
    TRY("open /sys", opens("/sys/kernel"));
    TRY("open /dev/mem", opens("/dev/mem"));
    TRY("open /dev/fuse", opens("/dev/fuse"));
    TRY("open ..", opens("../../../../../../etc/passwd"));
    TRY("open a path from a descriptor", from_descriptors("../../../../../../etc/passwd"));
    TRY("core_pattern from a descriptor", from_descriptors("sys/kernel/core_pattern"));
    TRY("another process from a descriptor", from_descriptors("2/environ"));
    TRY("the root of a process from a descriptor", from_descriptors("self/root/etc/passwd"));
    TRY("create a file", open("/file", O_CREAT | O_WRONLY, 0600));
    TRY("mknod", mknod("/mem", S_IFCHR | 0600, makedev(1, 1)));
    TRY("leave a chroot", climbs());
    CALL(open_by_handle_at, AT_FDCWD, NULL, O_RDONLY);
    TRY("mount tmpfs", mount("x", "/", "tmpfs", 0, NULL));
    TRY("umount", umount2("/", MNT_DETACH));
    CALL(pivot_root, ".", ".");
    CALL(fsopen, "tmpfs", 0);
    CALL(open_tree, AT_FDCWD, "/", 1);
    TRY("chroot", chroot("/"));
    CALL(fanotify_init, 0, 0);
    CALL(inotify_init1, 0);
    CALL(swapon, "/x", 0);
    CALL(acct, "/x");
    CALL(quotactl, 0, "/x", 0, NULL);
}

static void namespaces_and_processes(void) {
    TRY("unshare user", unshare(CLONE_NEWUSER));
    TRY("unshare mount", unshare(CLONE_NEWNS));
    TRY("unshare network", unshare(CLONE_NEWNET));
    CALL(setns, 0, 0);
    TRY("fork", child(fork()));
    TRY("vfork", child(syscall(SYS_clone, SIGCHLD | CLONE_VM | CLONE_VFORK, NULL, NULL, NULL, NULL)));
    TRY("clone user namespace", child(syscall(SYS_clone, SIGCHLD | CLONE_NEWUSER, NULL, NULL, NULL, NULL)));
    TRY("execve", execl("/bin/sh", "sh", "-c", "exit", NULL));
    CALL(execveat, 0, "", NULL, NULL, AT_EMPTY_PATH);
    TRY("kill the parent", kill(getppid() ? getppid() : 1 << 20, 0));
    TRY("kill process 2", kill(2, 0));
    TRY("kill all", kill(-1, 0));
    TRY("pidfd_open", syscall(SYS_pidfd_open, 2, 0));
    CALL(pidfd_getfd, 0, 0, 0);
    CALL(ptrace, 16 /* PTRACE_ATTACH */, getppid(), NULL, NULL);
    CALL(process_vm_readv, getppid(), NULL, 0, NULL, 0, 0);
    CALL(kcmp, getppid(), getpid(), 0, 0, 0);
    TRY("nice -20", setpriority(PRIO_PROCESS, 0, -20));
    struct sched_param parameter = {.sched_priority = 1};
    TRY("real-time scheduling", sched_setscheduler(0, SCHED_FIFO, &parameter));
    TRY("raise a limit", raises_limit());
}

static void sockets(void) {
    TRY("TCP socket", socket_of(AF_INET, SOCK_STREAM));
    TRY("UDP socket", socket_of(AF_INET, SOCK_DGRAM));
    TRY("raw socket", socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
    TRY("IPv6 socket", socket_of(AF_INET6, SOCK_STREAM));
    TRY("netlink socket", socket_of(AF_NETLINK, SOCK_RAW));
    TRY("packet socket", socket_of(AF_PACKET, SOCK_RAW));
    TRY("vsock socket", socket_of(AF_VSOCK, SOCK_STREAM));
    TRY("AF_ALG socket", socket_of(AF_ALG, SOCK_SEQPACKET));
    TRY("unix socket", socket_of(AF_UNIX, SOCK_STREAM));
    TRY("connect to an abstract socket", abstract(0));
    TRY("bind an abstract socket", abstract(1));
}

static void identity(void) {
    TRY("setuid 0", syscall(SYS_setuid, 0));
    TRY("setresuid 1000", syscall(SYS_setresuid, 1000, 1000, 1000));
    TRY("setgid 0", syscall(SYS_setgid, 0));
    gid_t groups[] = {0};
    TRY("setgroups", syscall(SYS_setgroups, 1, groups));
    TRY("CAP_SYS_ADMIN", gains(CAP_SYS_ADMIN));
    TRY("CAP_SYS_PTRACE", gains(CAP_SYS_PTRACE));
    TRY("CAP_DAC_READ_SEARCH", gains(CAP_DAC_READ_SEARCH));
    TRY("become dumpable", prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    TRY("outlive the parent", prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0));
    TRY("ambient capability", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
}

static void kernel(void) {
    struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE, .size = sizeof event};
    CALL(perf_event_open, &event, 0, -1, -1, 0);
    CALL(bpf, 0, NULL, 0);
    CALL(userfaultfd, 0);
    char parameters[256] = {0};
    CALL(io_uring_setup, 1, parameters);
    CALL(keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 1);
    CALL(add_key, "user", "x", "x", 1, KEY_SPEC_PROCESS_KEYRING);
    CALL(request_key, "user", "x", NULL, 0);
    CALL(init_module, NULL, 0, "");
    CALL(finit_module, 0, "", 0);
    CALL(kexec_load, 0, 0, NULL, 0);
    CALL(reboot, 0xfee1dead, 672274793, 0, NULL);
    CALL(syslog, 3, NULL, 0);
    TRY("iopl", iopl(3));
    TRY("ioperm", ioperm(0, 1, 1));
    TRY("personality", syscall(SYS_personality, 0x0040000));
    TRY("sethostname", sethostname("x", 1));
    struct timespec now = {0};
    TRY("clock_settime", clock_settime(CLOCK_REALTIME, &now));
    TRY("mlockall", mlockall(MCL_CURRENT));
    TRY("shared memory", syscall(SYS_shmget, 1, 4096, 01600));
    TRY("message queue", syscall(SYS_msgget, 1, 01600));
    TRY("memory that is written and executed", becomes_executable(1));
    TRY("memory that becomes executable", becomes_executable(0));
    CALL(move_pages, 0, 0, NULL, NULL, NULL, 0);
}

void probe_run(void) {
    files();
    namespaces_and_processes();
    sockets();
    kernel();
    identity();
    char line[32];
    snprintf(line, sizeof line, "tried %d\n", tried);
    say(line);
}
