#define _GNU_SOURCE
#include "CSeccomp.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

void *martlet_seccomp_new(uint32_t action) { return seccomp_init(action); }
void martlet_seccomp_free(void *filter) { seccomp_release(filter); }

int martlet_seccomp_add_architecture(void *filter, const char *name) {
    uint32_t token = seccomp_arch_resolve_name(name);
    if (token == 0) return -EINVAL;
    int result = seccomp_arch_add(filter, token);
    return result == -EEXIST ? 0 : result;
}

int martlet_seccomp_optimize(void *filter) { return seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); }

int martlet_seccomp_resolve(const char *name, int *number) {
    *number = seccomp_syscall_resolve_name(name);
    return *number != __NR_SCMP_ERROR;
}

int martlet_seccomp_number(const char *architecture, const char *name) {
    return seccomp_syscall_resolve_name_arch(seccomp_arch_resolve_name(architecture), name);
}

int martlet_seccomp_add_rule(void *filter, uint32_t action, int number, unsigned count, const struct martlet_seccomp_condition *conditions) {
    static const enum scmp_compare operations[] = {SCMP_CMP_NE, SCMP_CMP_LT, SCMP_CMP_LE, SCMP_CMP_EQ, SCMP_CMP_GE, SCMP_CMP_GT, SCMP_CMP_MASKED_EQ};
    struct scmp_arg_cmp list[6];
    if (count > 6) return -EINVAL;
    for (unsigned i = 0; i < count; i++)
        list[i] = (struct scmp_arg_cmp){conditions[i].argument, operations[conditions[i].operation], conditions[i].value, conditions[i].second};
    return seccomp_rule_add_array(filter, action, number, count, list);
}

int martlet_seccomp_export(void *filter, int descriptor) { return seccomp_export_bpf(filter, descriptor); }

int martlet_seccomp_load(unsigned flags, const uint64_t *instructions, unsigned short count) {
    struct sock_fprog program = {.len = count, .filter = (struct sock_filter *)instructions};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

// The names of this machine's system calls, made before the first filter: a handler must not ask libseccomp, which allocates.
static char *call_names[512];
static int trap_code;

static void end_on_trap(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    char line[160] = "a system call outside of the filter: ", thread[17] = "";
    int call = info->si_syscall;
    char digits[12], *digit = digits + sizeof digits - 1;
    *digit = 0;
    for (unsigned n = (unsigned)call; digit == digits + sizeof digits - 1 || n; n /= 10) *--digit = (char)('0' + n % 10);
    const char *name = call >= 0 && call < 512 && call_names[call] ? call_names[call] : digit;
    prctl(PR_GET_NAME, thread, 0, 0, 0);
    strncat(line, name, 40);
    strcat(line, " (thread ");
    strncat(line, thread, 16);
    strcat(line, ")\n");
    if (write(2, line, strlen(line)) < 0) _exit(trap_code);
    _exit(trap_code);
}

void martlet_seccomp_end_on_trap(int code) {
    trap_code = code;
    for (int i = 0; i < 512; i++)
        if (!call_names[i]) call_names[i] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);
    struct sigaction action = {.sa_sigaction = end_on_trap, .sa_flags = SA_SIGINFO};
    sigaction(SIGSYS, &action, NULL);
}
