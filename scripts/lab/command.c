/* Runs the command and passes its output on. See lab.h. */
#define _GNU_SOURCE
#include "lab.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *job_file(const char *directory, const char *name, size_t *size) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return read_file(path, size);
}

/* A NUL-separated list as execve wants it. */
static char **split_list(char *bytes, size_t size) {
    size_t count = 0;
    for (size_t i = 0; i < size; i++) count += bytes[i] == 0;
    char **list = calloc(count + 1, sizeof *list);
    for (size_t i = 0; i < count; i++, bytes += strlen(bytes) + 1) list[i] = bytes;
    return list;
}

struct job read_job(const char *directory) {
    size_t argument_size = 0, environment_size = 0;
    char *arguments = job_file(directory, "arguments", &argument_size);
    char *environment = job_file(directory, "environment", &environment_size);
    struct job job = {.directory = job_file(directory, "directory", NULL), .writable = job_file(directory, "writable", NULL)};
    if (!arguments || !argument_size || !environment || !job.directory) fail("read the job in %s", directory);
    job.arguments = split_list(arguments, argument_size);
    job.environment = split_list(environment, environment_size);
    return job;
}

static pid_t start(const struct job *job, int output, int errors) {
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child) return child;
    setsid();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(output, 1);
    dup2(errors, 2);
    close_range(3, ~0U, 0);
    /* Of the Bochs lab, whose first process may use all ports. */
    iopl(0);
    if (chdir(job->directory)) {
        fprintf(stderr, "lab: chdir %s: %s\n", job->directory, strerror(errno));
        _exit(126);
    }
    environ = job->environment;
    execvp(job->arguments[0], job->arguments);
    fprintf(stderr, "lab: %s: %s\n", job->arguments[0], strerror(errno));
    _exit(errno == ENOENT ? 127 : 126);
}

/* One stream of the command on its way to the host. */
struct relay {
    int from;
    const struct sink *sink;
    size_t begin, end;
    char bytes[32768];
};

/* Moves what can be moved. Returns 0 when the other end is closed and all is sent. */
static int move(struct relay *relay) {
    for (;;) {
        if (relay->begin == relay->end && relay->from >= 0) {
            ssize_t count = read(relay->from, relay->bytes, sizeof relay->bytes);
            if (count < 0) return 1;
            relay->begin = 0;
            relay->end = count;
            if (count == 0) {
                close(relay->from);
                relay->from = -1;
            }
        }
        if (relay->begin == relay->end) return relay->from >= 0;
        ssize_t count = relay->sink->send(relay->sink, relay->bytes + relay->begin, relay->end - relay->begin);
        if (count < 0) return 1;
        relay->begin += count;
    }
}

static long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Until the command has ended and what it wrote has left; a process that it left behind and that holds its streams
   is waited for half a second, as nobody reads them any more. Returns the command's exit status, as a shell would say it. */
static int follow(pid_t command, int signals, struct relay *relays) {
    int status = -1, open[2] = {1, 1};
    long deadline = 0;
    while (status < 0 || ((open[0] || open[1]) && now() < deadline)) {
        struct pollfd wait[3] = {{.fd = signals, .events = POLLIN}};
        for (int i = 0; i < 2; i++) {
            open[i] = open[i] && move(&relays[i]);
            int sending = relays[i].begin != relays[i].end;
            wait[1 + i].fd = !open[i] ? -1 : sending ? relays[i].sink->ready : relays[i].from;
            wait[1 + i].events = sending ? POLLOUT : POLLIN;
            /* What was read must get out, however long the host takes. */
            if (sending && status >= 0) deadline = now() + 500;
        }
        if (status >= 0 && !open[0] && !open[1]) break;
        poll(wait, 3, status < 0 ? -1 : 100);
        struct signalfd_siginfo info;
        if (wait[0].revents && read(signals, &info, sizeof info) < 0 && errno != EAGAIN) fail("read signals");
        int how;
        for (pid_t pid; (pid = waitpid(-1, &how, WNOHANG)) > 0;)
            if (pid == command) {
                status = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
                deadline = now() + 500;
            }
    }
    return status;
}

int run_command(const struct job *job, const struct sink sinks[2], void (*started)(void)) {
    sigset_t child_ended;
    sigemptyset(&child_ended);
    sigaddset(&child_ended, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child_ended, NULL);
    int signals = signalfd(-1, &child_ended, SFD_CLOEXEC | SFD_NONBLOCK);
    int output[2], errors[2];
    if (signals < 0 || pipe2(output, O_CLOEXEC) || pipe2(errors, O_CLOEXEC)) fail("make pipes");
    pid_t command = start(job, output[1], errors[1]);
    close(output[1]);
    close(errors[1]);
    static struct relay relays[2];
    relays[0] = (struct relay){.from = output[0], .sink = &sinks[0]};
    relays[1] = (struct relay){.from = errors[0], .sink = &sinks[1]};
    for (int i = 0; i < 2; i++) fcntl(relays[i].from, F_SETFL, O_NONBLOCK);
    started();
    return follow(command, signals, relays);
}
