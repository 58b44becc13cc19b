#define _GNU_SOURCE
#include "CAgent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/random.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#if defined(__x86_64__)
#include <sys/io.h>
#endif
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

int martlet_agent_setns(int descriptor, int namespaces) { return setns(descriptor, namespaces); }
int martlet_agent_unshare(int namespaces) { return unshare(namespaces); }

int martlet_agent_become_root(void) {
    if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, 0, 0, 0) < 0) return -1;
    return (int)syscall(SYS_setresuid, 0, 0, 0);
}

int martlet_agent_pivot_root(const char *new_root, const char *put_old) {
    return (int)syscall(SYS_pivot_root, new_root, put_old);
}

int martlet_agent_finit_module(int descriptor, const char *parameters, int flags) {
    return (int)syscall(SYS_finit_module, descriptor, parameters, flags);
}

int martlet_agent_join_session_keyring(void) {
    return syscall(SYS_keyctl, 1 /* KEYCTL_JOIN_SESSION_KEYRING */, NULL) < 0 ? -1 : 0;
}

int martlet_agent_capset(uint64_t effective, uint64_t permitted, uint64_t inheritable) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
    };
    return (int)syscall(SYS_capset, &header, data);
}

int martlet_agent_setresuid(uint32_t user) { return (int)syscall(SYS_setresuid, user, user, user); }
int martlet_agent_setresgid(uint32_t group) { return (int)syscall(SYS_setresgid, group, group, group); }

int martlet_agent_mknod(int directory, const char *name, uint32_t mode, unsigned major, unsigned minor) {
    return mknodat(directory, name, mode, makedev(major, minor));
}

uint64_t martlet_agent_device_number(unsigned major, unsigned minor) { return makedev(major, minor); }

unsigned martlet_agent_device_major(uint64_t number) { return major(number); }

unsigned martlet_agent_device_minor(uint64_t number) { return minor(number); }

int martlet_agent_pty_peer(int master, int flags) { return ioctl(master, TIOCGPTPEER, flags); }

int martlet_agent_pty_unlock(int master) {
    int locked = 0;
    return ioctl(master, TIOCSPTLCK, &locked);
}

int martlet_agent_set_window(int terminal, unsigned short rows, unsigned short columns) {
    struct winsize size = {.ws_row = rows, .ws_col = columns};
    return ioctl(terminal, TIOCSWINSZ, &size);
}

int martlet_agent_set_controlling_terminal(int terminal) { return ioctl(terminal, TIOCSCTTY, 0); }

int martlet_agent_reseed(int random, const void *bytes, int length) {
    if (length < 0 || length > 4096) { errno = EINVAL; return -1; }
    struct { int entropy_count; int size; unsigned char bytes[4096]; } pool;
    pool.entropy_count = length * 8;
    pool.size = length;
    memcpy(pool.bytes, bytes, (size_t)length);
    if (ioctl(random, RNDADDENTROPY, &pool) < 0) return -1;
    return ioctl(random, RNDRESEEDCRNG, NULL);
}

int martlet_agent_interface_up(const char *name) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    struct ifreq request;
    memset(&request, 0, sizeof request);
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    int result = ioctl(fd, SIOCGIFFLAGS, &request);
    if (result == 0) {
        request.ifr_flags = (short)(request.ifr_flags | IFF_UP | IFF_RUNNING);
        result = ioctl(fd, SIOCSIFFLAGS, &request);
    }
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

uint64_t martlet_agent_memory_size(void) {
    struct sysinfo information;
    return sysinfo(&information) == 0 ? (uint64_t)information.totalram * information.mem_unit : 0;
}

void martlet_agent_power_off(void) {
    reboot(RB_POWER_OFF);
    reboot(RB_AUTOBOOT);
}

int martlet_agent_write_port(uint16_t port, uint8_t value) {
#if defined(__x86_64__)
    // The permission is the calling thread's, and it is given back: no other code of the agent reaches the port.
    if (ioperm(port, 1, 1) < 0) return errno;
    outb(value, port);
    ioperm(port, 1, 0);
    return 0;
#else
    (void)port, (void)value;
    return ENOSYS;
#endif
}

static int bind_and_listen(int fd, const struct sockaddr *address, socklen_t length) {
    if (bind(fd, address, length) == 0 && listen(fd, SOMAXCONN) == 0) return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

int martlet_agent_vsock_listen(unsigned port) {
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
    return bind_and_listen(fd, (const struct sockaddr *)&address, sizeof address);
}

int martlet_agent_unix_listen(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) { errno = ENAMETOOLONG; return -1; }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    return bind_and_listen(fd, (const struct sockaddr *)&address, sizeof address);
}

int martlet_agent_load_device_program(const uint64_t *instructions, unsigned count, char *log, unsigned log_size) {
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attributes.insns = (uint64_t)(uintptr_t)instructions;
    attributes.insn_cnt = count;
    attributes.license = (uint64_t)(uintptr_t)"Apache-2.0";
    int program = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes);
    if (program >= 0 || log_size == 0) return program;
    // Once more with a log, which takes time, to learn the reason.
    log[0] = 0;
    attributes.log_level = 1;
    attributes.log_buf = (uint64_t)(uintptr_t)log;
    attributes.log_size = log_size;
    return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes);
}

int martlet_agent_attach_device_program(int cgroup, int program) {
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.target_fd = (uint32_t)cgroup;
    attributes.attach_bpf_fd = (uint32_t)program;
    attributes.attach_type = BPF_CGROUP_DEVICE;
    attributes.attach_flags = BPF_F_ALLOW_MULTI;
    return (int)syscall(SYS_bpf, BPF_PROG_ATTACH, &attributes, sizeof attributes);
}

int martlet_agent_set_scheduler(uint32_t policy, uint64_t flags, int32_t nice, uint32_t priority, uint64_t runtime, uint64_t deadline, uint64_t period) {
    // struct sched_attr, version 0; its header can't be used together with the C library's.
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {sizeof attributes, policy, flags, nice, priority, runtime, deadline, period};
    return (int)syscall(SYS_sched_setattr, 0, &attributes, 0);
}

int martlet_agent_set_io_priority(int priority) {
    return (int)syscall(SYS_ioprio_set, 1 /* IOPRIO_WHO_PROCESS */, 0, priority);
}

int martlet_agent_set_personality(unsigned long personality) { return syscall(SYS_personality, personality) < 0 ? -1 : 0; }

int martlet_agent_set_affinity(const uint64_t *mask, unsigned count) {
    return syscall(SYS_sched_setaffinity, 0, (unsigned long)count * sizeof *mask, mask) < 0 ? -1 : 0;
}
