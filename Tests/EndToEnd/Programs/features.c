// Uses each kernel feature that ordinary images rely on, once and for real. Runs as root with all capabilities,
// inside a container of the guest (or as anything on any Linux), and leaves nothing behind.
//
//   features all                  every feature
//   features NAME…                these
//   features list                 their names
//   features config FILE          /proc/config.gz against FILE: lines as in configs/kernel/*.config
//
// One line each: "ok NAME" or "FAIL NAME: what was done: what the system answered". Exit code 1 when any failed.
// Build: cc -O1 -static -o features features.c -lz        (Debian: libc6-dev, zlib1g-dev)
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/aio_abi.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/io_uring.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/loop.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/x_tables.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <linux/userfaultfd.h>
#include <linux/veth.h>
#include <mqueue.h>
#include <net/ethernet.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <zlib.h>

// ---- failing ----

// Every feature runs in a process of its own: failing is leaving it. Its words go to the parent through this pipe.
static int words = 1;

__attribute__((noreturn, format(printf, 2, 3))) static void fail(int error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vdprintf(words, format, arguments);
    va_end(arguments);
    if (error) dprintf(words, ": %s", strerror(error));
    _exit(1);
}

// The result of a system call, or the end: must(open(…), "open x").
#define must(call, ...)                                 \
    ({                                                  \
        __typeof__(call) result_ = (call);              \
        if ((long)result_ == -1) fail(errno, __VA_ARGS__); \
        result_;                                        \
    })
#define check(condition, ...)                  \
    do {                                       \
        if (!(condition)) fail(0, __VA_ARGS__); \
    } while (0)

// ---- a place to work: a tmpfs with a /proc of its own (a container's is read-only in places) ----

#define WORK "/tmp"

static void make_place(void) {
    must(unshare(CLONE_NEWNS), "unshare mount namespace");
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
    mkdir(WORK, 0755);
    must(mount("features", WORK, "tmpfs", 0, NULL), "mount tmpfs");
    mkdir(WORK "/proc", 0755);
    must(mount("proc", WORK "/proc", "proc", 0, NULL), "mount proc");
}

static void write_file(const char *path, const char *text) {
    int fd = must(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644), "open %s", path);
    must(write(fd, text, strlen(text)), "write '%s' to %s", text, path);
    close(fd);
}

static char *read_file(const char *path) {
    static char text[16384];
    int fd = must(open(path, O_RDONLY | O_CLOEXEC), "open %s", path);
    ssize_t length = must(read(fd, text, sizeof text - 1), "read %s", path);
    text[length] = 0;
    close(fd);
    return text;
}

// Runs a program and returns its exit code.
static int run(const char *path) {
    pid_t child = must(fork(), "fork");
    if (child == 0) {
        execl(path, path, NULL);
        fail(errno, "execve %s", path);
    }
    int status;
    must(waitpid(child, &status, 0), "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// ---- processes talk ----

static void sysvipc_shm(void) {
    int id = must(shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600), "shmget");
    char *one = must(shmat(id, NULL, 0), "shmat"), *other = must(shmat(id, NULL, 0), "shmat");
    must(shmctl(id, IPC_RMID, NULL), "shmctl IPC_RMID");
    strcpy(one, "shared");
    check(!strcmp(other, "shared"), "two views of one segment differ");
}

static void sysvipc_msg(void) {
    struct { long type; char text[8]; } sent = {7, "message"}, got = {0};
    int id = must(msgget(IPC_PRIVATE, IPC_CREAT | 0600), "msgget");
    must(msgsnd(id, &sent, sizeof sent.text, 0), "msgsnd");
    must(msgrcv(id, &got, sizeof got.text, 7, IPC_NOWAIT), "msgrcv");
    must(msgctl(id, IPC_RMID, NULL), "msgctl IPC_RMID");
    check(!strcmp(got.text, sent.text), "another message came back");
}

static void sysvipc_sem(void) {
    struct sembuf up = {0, 2, 0}, down = {0, -1, IPC_NOWAIT};
    int id = must(semget(IPC_PRIVATE, 1, IPC_CREAT | 0600), "semget");
    must(semop(id, &up, 1), "semop +2");
    must(semop(id, &down, 1), "semop -1");
    int value = must(semctl(id, 0, GETVAL), "semctl GETVAL");
    must(semctl(id, 0, IPC_RMID), "semctl IPC_RMID");
    check(value == 1, "semaphore is %d, not 1", value);
}

static void posix_mqueue(void) {
    struct mq_attr attributes = {.mq_maxmsg = 2, .mq_msgsize = 16};
    char got[16];
    mqd_t queue = must(mq_open("/martlet-features", O_RDWR | O_CREAT, 0600, &attributes), "mq_open");
    mq_unlink("/martlet-features");
    must(mq_send(queue, "queued", 7, 1), "mq_send");
    must(mq_receive(queue, got, sizeof got, NULL), "mq_receive");
    check(!strcmp(got, "queued"), "another message came back");
}

static void unix98_ptys(void) {
    char got[8] = "";
    mkdir(WORK "/pts", 0755);
    must(mount("devpts", WORK "/pts", "devpts", 0, "newinstance,ptmxmode=0666"), "mount devpts");
    int master = must(open(WORK "/pts/ptmx", O_RDWR | O_NOCTTY), "open ptmx");
    must(unlockpt(master), "unlockpt");
    int number = -1;
    must(ioctl(master, TIOCGPTN, &number), "TIOCGPTN");
    char path[64];
    snprintf(path, sizeof path, WORK "/pts/%d", number);
    int slave = must(open(path, O_RDWR | O_NOCTTY), "open %s", path);
    must(write(slave, "tty", 3), "write to the terminal");
    must(read(master, got, sizeof got), "read from the master");
    check(!strcmp(got, "tty"), "the terminal gave '%s'", got);
}

// ---- waiting and asynchronous input ----

static void aio(void) {
    write_file(WORK "/aio", "asynchronous");
    int fd = must(open(WORK "/aio", O_RDONLY), "open");
    char got[16] = "";
    aio_context_t context = 0;
    must(syscall(SYS_io_setup, 4, &context), "io_setup");
    struct iocb request = {.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = fd, .aio_buf = (uintptr_t)got, .aio_nbytes = 12};
    struct iocb *requests[] = {&request};
    struct io_event event;
    must(syscall(SYS_io_submit, context, 1, requests), "io_submit");
    must(syscall(SYS_io_getevents, context, 1, 1, &event, NULL), "io_getevents");
    check(event.res == 12 && !strcmp(got, "asynchronous"), "read %lld bytes '%s'", (long long)event.res, got);
    must(syscall(SYS_io_destroy, context), "io_destroy");
}

static void io_uring(void) {
    write_file(WORK "/ring", "ring");
    int file = must(open(WORK "/ring", O_RDONLY), "open");
    char got[8] = "";
    struct io_uring_params p = {0};
    int fd = must(syscall(SYS_io_uring_setup, 4, &p), "io_uring_setup");
    // IORING_FEAT_SINGLE_MMAP (5.4): one mapping holds both rings.
    size_t size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    if (size < p.sq_off.array + p.sq_entries * sizeof(unsigned)) size = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    char *ring = must(mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING), "mmap rings");
    struct io_uring_sqe *sqes = must(
        mmap(NULL, p.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQES), "mmap entries");
    memset(sqes, 0, 2 * sizeof *sqes);
    sqes[0] = (struct io_uring_sqe){.opcode = IORING_OP_NOP, .user_data = 1};
    sqes[1] = (struct io_uring_sqe){
        .opcode = IORING_OP_READ, .fd = file, .addr = (uintptr_t)got, .len = 4, .user_data = 2};
    unsigned *array = (unsigned *)(ring + p.sq_off.array);
    array[0] = 0, array[1] = 1;
    __atomic_store_n((unsigned *)(ring + p.sq_off.tail), 2, __ATOMIC_RELEASE);
    must(syscall(SYS_io_uring_enter, fd, 2, 2, IORING_ENTER_GETEVENTS, NULL, 0), "io_uring_enter");
    unsigned done = __atomic_load_n((unsigned *)(ring + p.cq_off.tail), __ATOMIC_ACQUIRE);
    check(done == 2, "%u completions, not 2", done);
    struct io_uring_cqe *cqes = (struct io_uring_cqe *)(ring + p.cq_off.cqes);
    for (int i = 0; i < 2; i++) {
        int expected = cqes[i].user_data == 1 ? 0 : 4;
        if (cqes[i].res != expected) fail(cqes[i].res < 0 ? -cqes[i].res : 0, "request %d gave %d", (int)cqes[i].user_data, cqes[i].res);
    }
    check(!strcmp(got, "ring"), "read '%s'", got);
}

// The kernel cuts a backlog to net.core.somaxconn, however long it is.
static void listen_backlog(void) {
    int listener = must(socket(AF_INET, SOCK_STREAM, 0), "socket");
    must(listen(listener, 100000), "listen with a backlog of 100000");
    close(listener);
}

static void epoll(void) {
    int pipes[2], fd = must(epoll_create1(0), "epoll_create1");
    must(pipe(pipes), "pipe");
    struct epoll_event event = {EPOLLIN, {.u64 = 42}};
    must(epoll_ctl(fd, EPOLL_CTL_ADD, pipes[0], &event), "epoll_ctl");
    must(write(pipes[1], "x", 1), "write");
    check(must(epoll_wait(fd, &event, 1, 2000), "epoll_wait") == 1 && event.data.u64 == 42, "no event");
}

static void event_fd(void) {
    uint64_t value = 3;
    int fd = must(eventfd(0, 0), "eventfd");
    must(write(fd, &value, 8), "write");
    value = 0;
    must(read(fd, &value, 8), "read");
    check(value == 3, "read %d, not 3", (int)value);
}

static void timer_fd(void) {
    uint64_t value;
    struct itimerspec soon = {.it_value = {0, 1000000}};
    int fd = must(timerfd_create(CLOCK_MONOTONIC, 0), "timerfd_create");
    must(timerfd_settime(fd, 0, &soon, NULL), "timerfd_settime");
    must(read(fd, &value, 8), "read");
}

static void signal_fd(void) {
    sigset_t set;
    struct signalfd_siginfo got;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    must(sigprocmask(SIG_BLOCK, &set, NULL), "sigprocmask");
    int fd = must(signalfd(-1, &set, 0), "signalfd");
    must(raise(SIGUSR1), "raise");
    must(read(fd, &got, sizeof got), "read");
    check(got.ssi_signo == SIGUSR1, "signal %d", got.ssi_signo);
}

static void pid_fd(void) {
    pid_t child = must(fork(), "fork");
    if (child == 0) {
        pause();
        _exit(0);
    }
    int fd = must(syscall(SYS_pidfd_open, child, 0), "pidfd_open");
    must(syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0), "pidfd_send_signal");
    siginfo_t info = {0};
    must(waitid(P_PIDFD, fd, &info, WEXITED), "waitid P_PIDFD");
    check(info.si_status == SIGKILL, "died of %d", info.si_status);
}

static void inotify(void) {
    char events[4096];
    int fd = must(inotify_init1(0), "inotify_init1");
    must(inotify_add_watch(fd, WORK, IN_CREATE), "inotify_add_watch");
    write_file(WORK "/watched", "");
    must(read(fd, events, sizeof events), "read");
    check(!strcmp(((struct inotify_event *)events)->name, "watched"), "event for another file");
}

static void fanotify(void) {
    char events[4096];
    int fd = must(fanotify_init(FAN_CLASS_NOTIF, O_RDONLY), "fanotify_init");
    must(fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_CLOSE_WRITE, AT_FDCWD, WORK), "fanotify_mark");
    write_file(WORK "/fan", "x");
    must(read(fd, events, sizeof events), "read");
    check(((struct fanotify_event_metadata *)events)->mask & FAN_CLOSE_WRITE, "another event");
    // Permission events: what scanners use.
    close(must(fanotify_init(FAN_CLASS_CONTENT, O_RDONLY), "fanotify_init FAN_CLASS_CONTENT"));
}

// ---- what can be executed ----

// exit(42) by int $0x80 in a 32-bit ELF file. elf(5): header, one program header, code at 0x08048054.
static const unsigned char program32[] = {
    0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,    // 32-bit, little endian
    2, 0, 3, 0, 1, 0, 0, 0, 0x54, 0x80, 0x04, 0x08, 52, 0, 0, 0,    // executable, i386, entry, program headers at 52
    0, 0, 0, 0, 0, 0, 0, 0, 52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0,
    1, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x04, 0x08, 0, 0x80, 0x04, 0x08,    // load offset 0 at 0x08048000
    96, 0, 0, 0, 96, 0, 0, 0, 5, 0, 0, 0, 0, 0x10, 0, 0,
    0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80,    // mov $1, %eax; mov $42, %ebx; int $0x80
};

static void make_program32(const char *path) {
    int fd = must(open(path, O_WRONLY | O_CREAT, 0755), "open %s", path);
    must(write(fd, program32, sizeof program32), "write %s", path);
    close(fd);
}

static void ia32(void) {
    make_program32(WORK "/program32");
    int code = run(WORK "/program32");
    check(code == 42, "a 32-bit program ended with %d, not 42", code);
}

// The interpreter is this very program, which may lie where the work place now hides it: so a copy.
static void binfmt_script(void) {
    static char program[1 << 22];
    int from = must(open("/proc/self/exe", O_RDONLY), "open /proc/self/exe");
    int to = must(open(WORK "/interpreter", O_WRONLY | O_CREAT, 0755), "open interpreter");
    ssize_t length = must(read(from, program, sizeof program), "read /proc/self/exe");
    must(write(to, program, length), "write interpreter");
    close(to);
    write_file(WORK "/script", "#!" WORK "/interpreter exit-42\n");
    must(chmod(WORK "/script", 0755), "chmod");
    int code = run(WORK "/script");
    check(code == 42, "the script ended with %d, not 42", code);
}

// ---- network; each in a network namespace of its own ----

// From <net/if.h>, which cannot be had together with <linux/if.h>.
extern unsigned if_nametoindex(const char *name);

static void own_network(void) { must(unshare(CLONE_NEWNET), "unshare network namespace"); }

static void packet(void) {
    own_network();
    int fd = must(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)), "socket AF_PACKET");
    struct sockaddr_ll loopback = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = 1};
    must(bind(fd, (struct sockaddr *)&loopback, sizeof loopback), "bind to lo");
}

static void tun(void) {
    own_network();
    must(mknod(WORK "/tun", S_IFCHR | 0600, makedev(10, 200)), "mknod");
    int fd = must(open(WORK "/tun", O_RDWR), "open tun");
    struct ifreq request = {.ifr_name = "tap0"};
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    must(ioctl(fd, TUNSETIFF, &request), "TUNSETIFF tap");
    check(if_nametoindex("tap0"), "no interface tap0");
}

// A netlink message that grows; nested attributes are closed by attribute_end.
struct message {
    char bytes[4096];
    size_t length;
};

static struct nlmsghdr *message_begin(struct message *m, int type, int flags, const void *header, size_t size) {
    m->length = NLMSG_ALIGN(m->length);
    struct nlmsghdr *h = (void *)(m->bytes + m->length);
    *h = (struct nlmsghdr){.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags};
    memcpy(NLMSG_DATA(h), header, size);
    m->length += NLMSG_SPACE(size);
    return h;
}

static void message_end(struct message *m, struct nlmsghdr *h) { h->nlmsg_len = m->bytes + m->length - (char *)h; }

static struct nlattr *attribute(struct message *m, int type, const void *data, size_t size) {
    struct nlattr *a = (void *)(m->bytes + m->length);
    *a = (struct nlattr){.nla_len = NLA_HDRLEN + size, .nla_type = type};
    if (size) memcpy(a + 1, data, size);
    m->length += NLA_ALIGN(a->nla_len);
    return a;
}

static void attribute_text(struct message *m, int type, const char *text) { attribute(m, type, text, strlen(text) + 1); }
static struct nlattr *attribute_begin(struct message *m, int type) { return attribute(m, type, NULL, 0); }
static void attribute_end(struct message *m, struct nlattr *a) { a->nla_len = m->bytes + m->length - (char *)a; }

// Sends, and reads acknowledgements until there were so many or one says no.
static void netlink(int protocol, struct message *m, int acknowledgements, const char *what) {
    int fd = must(socket(AF_NETLINK, SOCK_RAW, protocol), "socket AF_NETLINK");
    struct timeval patience = {5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    must(send(fd, m->bytes, m->length, 0), "%s", what);
    while (acknowledgements > 0) {
        char answer[8192];
        int length = must(recv(fd, answer, sizeof answer, 0), "%s", what);
        for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, length); h = NLMSG_NEXT(h, length)) {
            if (h->nlmsg_type != NLMSG_ERROR) continue;
            int error = -((struct nlmsgerr *)NLMSG_DATA(h))->error;
            if (error) fail(error, "%s", what);
            acknowledgements--;
        }
    }
    close(fd);
}

static void new_link(const char *name, const char *kind, const char *peer, int master) {
    struct message m = {0};
    struct ifinfomsg info = {.ifi_family = AF_UNSPEC};
    struct nlmsghdr *h = message_begin(&m, RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &info, sizeof info);
    attribute_text(&m, IFLA_IFNAME, name);
    if (master) attribute(&m, IFLA_MASTER, &master, 4);
    struct nlattr *link = attribute_begin(&m, IFLA_LINKINFO);
    attribute(&m, IFLA_INFO_KIND, kind, strlen(kind));
    if (peer) {
        struct nlattr *data = attribute_begin(&m, IFLA_INFO_DATA), *other = attribute_begin(&m, VETH_INFO_PEER);
        memcpy(m.bytes + m.length, &info, sizeof info);
        m.length += NLMSG_ALIGN(sizeof info);
        attribute_text(&m, IFLA_IFNAME, peer);
        attribute_end(&m, other);
        attribute_end(&m, data);
    }
    attribute_end(&m, link);
    message_end(&m, h);
    netlink(NETLINK_ROUTE, &m, 1, kind);
}

static void veth(void) {
    own_network();
    new_link("one", "veth", "other", 0);
    check(if_nametoindex("one") && if_nametoindex("other"), "a half of the pair is missing");
}

static void bridge(void) {
    own_network();
    new_link("bridge", "bridge", NULL, 0);
    new_link("port", "veth", "other", if_nametoindex("bridge"));
    // bridge_netfilter: packets that cross the bridge are seen by iptables.
    must(access(WORK "/proc/sys/net/bridge/bridge-nf-call-iptables", F_OK), "bridge-nf-call-iptables");
}

static void dummy(void) {
    own_network();
    new_link("dummy", "dummy", NULL, 0);
}

// iptables-legacy: the nat table comes to life when it is asked for.
static void iptables_nat(int family, int level, int info_option, int target_option) {
    own_network();
    int fd = must(socket(family, SOCK_RAW, IPPROTO_RAW), "socket");
    struct ipt_getinfo info = {.name = "nat"};    // struct ip6t_getinfo is the same
    socklen_t length = sizeof info;
    must(getsockopt(fd, level, info_option, &info, &length), "the nat table");
    check(info.num_entries >= 4, "the nat table has %u entries", info.num_entries);
    struct xt_get_revision target = {.name = "MASQUERADE"};
    length = sizeof target;
    must(getsockopt(fd, level, target_option, &target, &length), "the target MASQUERADE");
}
static void iptables_nat4(void) { iptables_nat(AF_INET, IPPROTO_IP, IPT_SO_GET_INFO, IPT_SO_GET_REVISION_TARGET); }
static void iptables_nat6(void) { iptables_nat(AF_INET6, IPPROTO_IPV6, IP6T_SO_GET_INFO, IP6T_SO_GET_REVISION_TARGET); }

// nft add table T; add chain T nat { type nat hook postrouting priority 100; }; add rule T nat masquerade
static void nft_nat(int family) {
    own_network();
    struct message m = {0};
    struct nfgenmsg batch = {.res_id = htons(NFNL_SUBSYS_NFTABLES)}, table = {.nfgen_family = family};
    int create = NLM_F_ACK | NLM_F_CREATE, subsystem = NFNL_SUBSYS_NFTABLES << 8;
    struct nlmsghdr *h = message_begin(&m, NFNL_MSG_BATCH_BEGIN, 0, &batch, sizeof batch);
    message_end(&m, h);

    h = message_begin(&m, subsystem | NFT_MSG_NEWTABLE, create, &table, sizeof table);
    attribute_text(&m, NFTA_TABLE_NAME, "features");
    message_end(&m, h);

    h = message_begin(&m, subsystem | NFT_MSG_NEWCHAIN, create, &table, sizeof table);
    attribute_text(&m, NFTA_CHAIN_TABLE, "features");
    attribute_text(&m, NFTA_CHAIN_NAME, "nat");
    struct nlattr *hook = attribute_begin(&m, NFTA_CHAIN_HOOK);
    uint32_t number = htonl(NF_INET_POST_ROUTING), priority = htonl(100);
    attribute(&m, NFTA_HOOK_HOOKNUM, &number, 4);
    attribute(&m, NFTA_HOOK_PRIORITY, &priority, 4);
    attribute_end(&m, hook);
    attribute_text(&m, NFTA_CHAIN_TYPE, "nat");
    message_end(&m, h);

    h = message_begin(&m, subsystem | NFT_MSG_NEWRULE, create | NLM_F_APPEND, &table, sizeof table);
    attribute_text(&m, NFTA_RULE_TABLE, "features");
    attribute_text(&m, NFTA_RULE_CHAIN, "nat");
    struct nlattr *list = attribute_begin(&m, NFTA_RULE_EXPRESSIONS), *element = attribute_begin(&m, NFTA_LIST_ELEM);
    attribute_text(&m, NFTA_EXPR_NAME, "masq");
    attribute_end(&m, element);
    attribute_end(&m, list);
    message_end(&m, h);

    h = message_begin(&m, NFNL_MSG_BATCH_END, 0, &batch, sizeof batch);
    message_end(&m, h);
    netlink(NETLINK_NETFILTER, &m, 3, "table, chain and masquerade rule");
}
static void nft_nat4(void) { nft_nat(NFPROTO_IPV4); }
static void nft_nat6(void) { nft_nat(NFPROTO_IPV6); }

// ---- memory and storage ----

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

// A file as a block device. Where the container may not have loop devices (EPERM), says so with -1.
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

// ---- namespaces and control groups ----

static void user_namespace(void) {
    must(unshare(CLONE_NEWUSER), "unshare user namespace");
    write_file("/proc/self/setgroups", "deny");
    write_file("/proc/self/uid_map", "1234 0 1\n");
    check(getuid() == 1234, "uid %d, not 1234", getuid());
}

static void time_namespace(void) {
    must(unshare(CLONE_NEWTIME), "unshare time namespace");
    write_file(WORK "/proc/self/timens_offsets", "monotonic 1000000 0\n");
    pid_t child = must(fork(), "fork");
    if (child == 0) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        _exit(now.tv_sec < 1000000);
    }
    int status;
    must(waitpid(child, &status, 0), "waitpid");
    check(status == 0, "the clock has no offset");
}

static void cgroup_namespace(void) {
    must(unshare(CLONE_NEWCGROUP), "unshare cgroup namespace");
    check(strstr(read_file("/proc/self/cgroup"), "0::/\n"), "not at the root: %s", read_file("/proc/self/cgroup"));
}

#define CGROUP WORK "/cgroup"

static void mount_cgroup(void) {
    mkdir(CGROUP, 0755);
    must(mount("cgroup2", CGROUP, "cgroup2", 0, NULL), "mount cgroup2");
}

// A child group with these controllers, below the group that this process may manage. That one may hold no process of
// its own then, unless it is the root (which has no cgroup.type): all move to a leaf.
static void child_cgroup(const char *controllers) {
    if (access(CGROUP "/cgroup.type", F_OK) == 0) {
        mkdir(CGROUP "/leaf", 0755);
        char *next = strdup(read_file(CGROUP "/cgroup.procs"));
        for (char *pid; (pid = strsep(&next, "\n")) && *pid;)
            if (atoi(pid)) write_file(CGROUP "/leaf/cgroup.procs", pid);
    }
    write_file(CGROUP "/cgroup.subtree_control", controllers);
    if (mkdir(CGROUP "/child", 0755) == -1 && errno != EEXIST) fail(errno, "mkdir a group");
}

// In a container whose own group has the file, the controller is there: nothing has to be moved.
static void cgroup_file(const char *controllers, const char *file) {
    mount_cgroup();
    char path[128];
    snprintf(path, sizeof path, CGROUP "/%s", file);
    if (access(path, F_OK) == 0) return;
    child_cgroup(controllers);
    snprintf(path, sizeof path, CGROUP "/child/%s", file);
    int found = access(path, F_OK), error = errno;
    rmdir(CGROUP "/child");
    if (found == -1) fail(error, "%s", file);
}
static void blkio_throttling(void) { cgroup_file("+io", "io.max"); }
static void hugetlb_cgroup(void) { cgroup_file("+hugetlb", "hugetlb.2MB.max"); }
static void swap_cgroup(void) { cgroup_file("+memory", "memory.swap.max"); }
static void cpu_bandwidth(void) { cgroup_file("+cpu", "cpu.max"); }
static void cpuset_cgroup(void) { cgroup_file("+cpuset", "cpuset.cpus"); }

static void pids_cgroup(void) { cgroup_file("+pids", "pids.max"); }

// ---- guarding ----

static void seccomp_filter(void) {
    // getppid answers ENOTTY, all else is allowed.
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTTY),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
    must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter), "seccomp");
    check(syscall(SYS_getppid) == -1 && errno == ENOTTY, "the filter does not hold");
}

static void landlock(void) {
    struct landlock_ruleset_attr rules = {.handled_access_fs = LANDLOCK_ACCESS_FS_READ_DIR};
    int fd = must(syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0), "landlock_create_ruleset");
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS");
    must(syscall(SYS_landlock_restrict_self, fd, 0), "landlock_restrict_self");
    check(open(WORK, O_RDONLY | O_DIRECTORY) == -1 && errno == EACCES, "the rule does not hold");
}

static void keyring(void) {
    char got[8] = "";
    int ring = must(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL), "KEYCTL_JOIN_SESSION_KEYRING");
    int key = must(syscall(SYS_add_key, "user", "features", "secret", 6, ring), "add_key");
    must(syscall(SYS_keyctl, KEYCTL_READ, key, got, sizeof got), "KEYCTL_READ");
    check(!strcmp(got, "secret"), "the key holds '%s'", got);
}

static void bpf_device_rules(void) {
    struct bpf_insn code[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 1},
        {.code = BPF_JMP | BPF_EXIT},
    };
    union bpf_attr attributes = {
        .prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
        .insns = (uintptr_t)code,
        .insn_cnt = 2,
        .license = (uintptr_t)"GPL",
    };
    int program = must(syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes), "BPF_PROG_LOAD");
    mount_cgroup();
    must(mkdir(CGROUP "/rules", 0755), "mkdir a group");
    int group = must(open(CGROUP "/rules", O_RDONLY | O_DIRECTORY), "open group");
    union bpf_attr attach = {.target_fd = group, .attach_bpf_fd = program, .attach_type = BPF_CGROUP_DEVICE};
    int result = syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach), error = errno;
    rmdir(CGROUP "/rules");
    if (result == -1) fail(error, "BPF_PROG_ATTACH to a group");
}

// ---- the kernel's own word ----

// Every line of the file that names an option must be true of /proc/config.gz.
static int compare_config(const char *path) {
    gzFile config = gzopen("/proc/config.gz", "rb");
    FILE *wanted = fopen(path, "r");
    if (!config || !wanted) {
        printf("FAIL config: %s: %s\n", config ? path : "/proc/config.gz", strerror(errno));
        return 1;
    }
    static char text[1 << 20], line[512], find[516];
    text[0] = '\n';
    int length = gzread(config, text + 1, sizeof text - 2), options = 0, wrong = 0;
    text[length < 0 ? 1 : length + 1] = 0;
    while (fgets(line, sizeof line, wanted)) {
        char option[128];
        line[strcspn(line, "\n")] = 0;
        if (sscanf(line, "# CONFIG_%100s is not set", option) == 1 && strstr(line, " is not set")) {
            // Absent, or present as this very comment.
            snprintf(find, sizeof find, "\nCONFIG_%s=", option);
            options++;
            if (!strstr(text, find)) continue;
        } else if (!strncmp(line, "CONFIG_", 7)) {
            snprintf(find, sizeof find, "\n%s\n", line);
            options++;
            if (strstr(text, find)) continue;
        } else {
            continue;
        }
        printf("FAIL config: %s\n", line);
        wrong++;
    }
    if (!wrong && options) printf("ok config (%d options)\n", options);
    if (!options) printf("FAIL config: no option in %s\n", path);
    return wrong || !options;
}

// ---- running them ----

static const struct feature {
    const char *name;
    void (*try)(void);
} features[] = {
    {"sysvipc-shm", sysvipc_shm},
    {"sysvipc-msg", sysvipc_msg},
    {"sysvipc-sem", sysvipc_sem},
    {"posix-mqueue", posix_mqueue},
    {"unix98-ptys", unix98_ptys},
    {"aio", aio},
    {"io_uring", io_uring},
    {"listen-backlog", listen_backlog},
    {"epoll", epoll},
    {"eventfd", event_fd},
    {"timerfd", timer_fd},
    {"signalfd", signal_fd},
    {"pidfd", pid_fd},
    {"inotify", inotify},
    {"fanotify", fanotify},
    {"binfmt-script", binfmt_script},
    {"ia32", ia32},
    {"packet", packet},
    {"tun", tun},
    {"veth", veth},
    {"bridge", bridge},
    {"dummy", dummy},
    {"iptables-nat-ipv4", iptables_nat4},
    {"iptables-nat-ipv6", iptables_nat6},
    {"nft-nat-ipv4", nft_nat4},
    {"nft-nat-ipv6", nft_nat6},
    {"memfd", memfd},
    {"userfaultfd", user_faultfd},
    {"hugetlb", hugetlb},
    {"swap", swap},
    {"overlay", overlay},
    {"erofs", erofs},
    {"ext4", ext4},
    {"virtiofs", virtiofs},
    {"user-namespace", user_namespace},
    {"time-namespace", time_namespace},
    {"cgroup-namespace", cgroup_namespace},
    {"cgroup-hugetlb", hugetlb_cgroup},
    {"cgroup-blkio-throttling", blkio_throttling},
    {"cgroup-swap", swap_cgroup},
    {"cgroup-cpu-bandwidth", cpu_bandwidth},
    {"cgroup-cpuset", cpuset_cgroup},
    {"cgroup-pids", pids_cgroup},
    {"seccomp-filter", seccomp_filter},
    {"landlock", landlock},
    {"keyring", keyring},
    {"bpf-device-rules", bpf_device_rules},
};
enum { count = sizeof features / sizeof *features };

static int try(const struct feature *feature) {
    int pipes[2], status;
    char text[1024];
    fflush(stdout);
    if (pipe2(pipes, O_CLOEXEC)) return 1;
    pid_t child = fork();
    if (child == 0) {
        words = pipes[1];
        alarm(30);
        make_place();
        feature->try();
        _exit(0);
    }
    close(pipes[1]);
    ssize_t length = 0, got;
    while (length < (ssize_t)sizeof text - 1 && (got = read(pipes[0], text + length, sizeof text - 1 - length)) > 0) length += got;
    text[length] = 0;
    close(pipes[0]);
    waitpid(child, &status, 0);
    if (status == 0) {
        printf("ok %s\n", feature->name);
        return 0;
    }
    if (WIFSIGNALED(status))
        printf("FAIL %s: ended by signal %d%s\n", feature->name, WTERMSIG(status), WTERMSIG(status) == SIGALRM ? " (took too long)" : "");
    else
        printf("FAIL %s: %s\n", feature->name, text);
    return 1;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "exit-42")) return 42;    // as a script's interpreter
    if (argc == 3 && !strcmp(argv[1], "config")) return compare_config(argv[2]);
    if (argc < 2) {
        fprintf(stderr, "usage: features all | list | config FILE | NAME…\n");
        return 2;
    }
    int failed = 0;
    for (int i = 1; i < argc; i++) {
        int known = 0;
        for (int j = 0; j < count; j++) {
            if (!strcmp(argv[i], "list")) {
                puts(features[j].name);
                known = 1;
            } else if (!strcmp(argv[i], "all") || !strcmp(argv[i], features[j].name)) {
                failed |= try(&features[j]);
                known = 1;
            }
        }
        if (!known) {
            fprintf(stderr, "features: no feature %s\n", argv[i]);
            return 2;
        }
    }
    return failed;
}
