#define _GNU_SOURCE
#include "CFault.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void stop_here(int number) {
    (void)number;
    for (;;) pause();
}

void martlet_agent_hang(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = stop_here;
    sigfillset(&action.sa_mask);
    // One that the threads of the language's runtime do not block.
    sigaction(SIGSYS, &action, NULL);
    pid_t process = getpid();
    long self = syscall(SYS_gettid);
    DIR *tasks = opendir("/proc/self/task");
    if (tasks != NULL) {
        struct dirent *entry;
        while ((entry = readdir(tasks)) != NULL) {
            long task = strtol(entry->d_name, NULL, 10);
            if (task > 0 && task != self) syscall(SYS_tgkill, process, task, SIGSYS);
        }
        closedir(tasks);
    }
    stop_here(0);
}

void martlet_agent_trap(void) { __builtin_trap(); }
