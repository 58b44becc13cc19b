#define _GNU_SOURCE
#include "CSeccomp.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
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
