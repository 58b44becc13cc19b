// Communication between processes, and waiting for events.
#include "features.h"

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <mqueue.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// ---- communication ----

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

// ---- events and asynchronous input ----

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

const struct feature ipc_features[] = {
    {"sysvipc-shm", sysvipc_shm},
    {"sysvipc-msg", sysvipc_msg},
    {"sysvipc-sem", sysvipc_sem},
    {"posix-mqueue", posix_mqueue},
    {"unix98-ptys", unix98_ptys},
    {"aio", aio},
    {"io_uring", io_uring},
    {"epoll", epoll},
    {"eventfd", event_fd},
    {"timerfd", timer_fd},
    {"signalfd", signal_fd},
    {"pidfd", pid_fd},
    {"inotify", inotify},
    {"fanotify", fanotify},
    {0},
};
