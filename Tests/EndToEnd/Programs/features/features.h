// What the parts of the program `features` share.
#pragma once
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

// A kernel feature and the function that uses it. Tables of features end with an empty entry.
struct feature {
    const char *name;
    void (*try)(void);
};

extern const struct feature ipc_features[], program_features[], network_features[], storage_features[], isolation_features[];

// Ends the process of a feature with a message; `error` is an errno, or 0.
__attribute__((noreturn, format(printf, 2, 3))) void fail(int error, const char *format, ...);

// The result of a system call. When it is -1, ends the process: must(open(…), "open x").
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

// The directory that a feature works in: a tmpfs with a /proc of its own, since a container's is read-only in places.
#define WORK "/tmp"

void write_file(const char *path, const char *text);
// The contents of a small file, in a static buffer.
char *read_file(const char *path);
// Runs a program and returns its exit code.
int run(const char *path);
// Compares /proc/config.gz with the options in a file, and prints the result. Returns 0 when all are as the file says.
int compare_config(const char *path);
