// Namespaces, cgroups, filters and keys.
#include "features.h"

#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// ---- namespaces and cgroups ----

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

// Makes a child cgroup with these controllers, below the cgroup that this process may manage. That one must have no processes
// then, unless it is the root (which has no cgroup.type), so all of them move to a leaf.
static void child_cgroup(const char *controllers) {
    if (access(CGROUP "/cgroup.type", F_OK) == 0) {
        mkdir(CGROUP "/leaf", 0755);
        char *next = strdup(read_file(CGROUP "/cgroup.procs"));
        for (char *pid; (pid = strsep(&next, "\n")) && *pid;)
            if (atoi(pid)) write_file(CGROUP "/leaf/cgroup.procs", pid);
    }
    write_file(CGROUP "/cgroup.subtree_control", controllers);
    if (mkdir(CGROUP "/child", 0755) == -1 && errno != EEXIST) fail(errno, "mkdir a cgroup");
}

// If the container's own cgroup has the file, the controller works, and no process has to be moved.
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

// ---- filters and keys ----

static void seccomp_filter(void) {
    // getppid fails with ENOTTY, all else is allowed.
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
    must(mkdir(CGROUP "/rules", 0755), "mkdir a cgroup");
    int group = must(open(CGROUP "/rules", O_RDONLY | O_DIRECTORY), "open cgroup");
    union bpf_attr attach = {.target_fd = group, .attach_bpf_fd = program, .attach_type = BPF_CGROUP_DEVICE};
    int result = syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach), error = errno;
    rmdir(CGROUP "/rules");
    if (result == -1) fail(error, "BPF_PROG_ATTACH to a cgroup");
}

const struct feature isolation_features[] = {
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
    {0},
};
