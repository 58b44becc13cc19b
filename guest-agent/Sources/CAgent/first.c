// What must happen before Swift starts, and the report of a crash.
#define _GNU_SOURCE
#include "CAgent.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

// Makes a file the first three descriptors.
static bool use_as_standard_streams(const char *path) {
    int file = open(path, O_RDWR | O_NOCTTY);
    if (file < 0) return false;
    for (int i = 0; i < 3; i++)
        if (file != i) dup2(file, i);
    if (file > 2) close(file);
    return true;
}

// Swift's start-up reads /proc/self/exe and aborts when it can't, before main: as the guest's first process the program
// starts with no file system mounted. 101 is the first priority open to programs, so this precedes Swift's own
// constructors. A container init, which may be process 1 of a container's namespace, finds /proc there already.
__attribute__((constructor(101), used)) static void mount_the_first_file_systems(void) {
    if (getpid() != 1 || access("/proc/self/exe", F_OK) == 0) return;
    mkdir("/proc", 0555);
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mkdir("/dev", 0755);
    mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
    // An initramfs without a console node, or a kernel whose console is a module, leaves the first process without
    // descriptors: other files would get their numbers, and messages would be written into them.
    if (fcntl(2, F_GETFD) < 0 && !use_as_standard_streams("/dev/console")) use_as_standard_streams("/dev/null");
}

void martlet_agent_find_console(void) {
    if (!isatty(2)) use_as_standard_streams("/dev/console");
}

static const char *name_of(int number) {
    switch (number) {
    case SIGILL: return "SIGILL (a trap)";
    case SIGTRAP: return "SIGTRAP (a trap)";
    case SIGSEGV: return "SIGSEGV";
    case SIGBUS: return "SIGBUS";
    case SIGFPE: return "SIGFPE";
    case SIGABRT: return "SIGABRT";
    default: return "a signal";
    }
}

static void report_crash(int number, siginfo_t *info, void *context) {
    (void)info;
    const ucontext_t *state = context;
    char line[160];
    int length = 0;
    const char *parts[] = {"martlet-agent crashed: ", name_of(number), " at 0x"};
    for (unsigned i = 0; i < 3; i++)
        for (const char *p = parts[i]; *p != 0 && length < 120; p++) line[length++] = *p;
    uint64_t address = (uint64_t)state->uc_mcontext.gregs[REG_RIP];
    for (int shift = 60; shift >= 0; shift -= 4) line[length++] = "0123456789abcdef"[(address >> shift) & 15];
    line[length++] = '\n';
    ssize_t ignored = write(2, line, (size_t)length);
    (void)ignored;
    // The disposition is the default again (SA_RESETHAND): returning executes the same instruction and dies of it.
    // SIGABRT is raised by a call, which would go on; the C library then ends the process another way.
}

void martlet_agent_install_crash_report(void) {
    static char stack[32768];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = report_crash;
    action.sa_flags = (int)(SA_SIGINFO | SA_RESETHAND | SA_ONSTACK | SA_NODEFER);
    const int signals[] = {SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGABRT};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, NULL);
}
