// Uses each kernel feature that ordinary images rely on once. Runs as root with all capabilities, inside a container of the guest
// or on any Linux, and leaves nothing behind.
//
//   features all                  every feature
//   features NAME…                these
//   features list                 their names
//   features config FILE          compares /proc/config.gz with FILE, whose lines are those of configs/kernel/*.config
//
// It prints one line each: "ok NAME" or "FAIL NAME: the step: the system's error". The exit code is 1 when one failed.
// Build: cc -O1 -static -o features features/*.c -lz        (Debian: libc6-dev, zlib1g-dev)
#include "features.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

// ---- helpers ----

// Every feature runs in a process of its own, which ends when it fails. Its message goes to the parent through this pipe.
static int message_pipe = 1;

void fail(int error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vdprintf(message_pipe, format, arguments);
    va_end(arguments);
    if (error) dprintf(message_pipe, ": %s", strerror(error));
    _exit(1);
}

static void make_workspace(void) {
    must(unshare(CLONE_NEWNS), "unshare mount namespace");
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "make mounts private");
    mkdir(WORK, 0755);
    must(mount("features", WORK, "tmpfs", 0, NULL), "mount tmpfs");
    mkdir(WORK "/proc", 0755);
    must(mount("proc", WORK "/proc", "proc", 0, NULL), "mount proc");
}

void write_file(const char *path, const char *text) {
    int fd = must(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644), "open %s", path);
    must(write(fd, text, strlen(text)), "write '%s' to %s", text, path);
    close(fd);
}

char *read_file(const char *path) {
    static char text[16384];
    int fd = must(open(path, O_RDONLY | O_CLOEXEC), "open %s", path);
    ssize_t length = must(read(fd, text, sizeof text - 1), "read %s", path);
    text[length] = 0;
    close(fd);
    return text;
}

int run(const char *path) {
    pid_t child = must(fork(), "fork");
    if (child == 0) {
        execl(path, path, NULL);
        fail(errno, "execve %s", path);
    }
    int status;
    must(waitpid(child, &status, 0), "waitpid");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// ---- running features ----

static const struct feature *const groups[] = {
    ipc_features, program_features, network_features, storage_features, isolation_features,
};
enum { group_count = sizeof groups / sizeof *groups };

static int try(const struct feature *feature) {
    int pipes[2], status;
    char text[1024];
    fflush(stdout);
    if (pipe2(pipes, O_CLOEXEC)) return 1;
    pid_t child = fork();
    if (child == 0) {
        message_pipe = pipes[1];
        alarm(30);
        make_workspace();
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
        for (int j = 0; j < group_count; j++) {
            for (const struct feature *feature = groups[j]; feature->name; feature++) {
                if (!strcmp(argv[i], "list")) {
                    puts(feature->name);
                    known = 1;
                } else if (!strcmp(argv[i], "all") || !strcmp(argv[i], feature->name)) {
                    failed |= try(feature);
                    known = 1;
                }
            }
        }
        if (!known) {
            fprintf(stderr, "features: no feature %s\n", argv[i]);
            return 2;
        }
    }
    return failed;
}
