/* What the first processes of both labs share: system.c sets a small Linux system up, command.c runs the command in it. */
#ifndef LAB_H
#define LAB_H
#include <stddef.h>
#include <sys/types.h>

/* Switches the machine off. */
_Noreturn void power_off(void);

/* Ends the lab without an exit status, which the host reports as "did not come up" or "broke down". The message, with
   errno's text, goes to stderr, which is the kernel's console. */
_Noreturn void fail(const char *format, ...);

/* Mounts a file system; makes the directory. */
void mount_at(const char *type, const char *source, const char *target, unsigned long flags, const char *data);

/* The whole file with a NUL byte behind it; NULL where there is none. `size` may be NULL. */
char *read_file(const char *path, size_t *size);

void write_text(const char *path, const char *text);

/* Loads the modules in /modules that the file `order` lists, one "FILE PARAMETERS" a line, dependencies first; but not
   the FILE `except`, which may be NULL. */
void load_modules(const char *order, const char *except);

/* The value of NAME=VALUE on the kernel's command line. */
char *parameter(const char *name);

/* Mounts the kernel's file systems below /new, as a running Debian has them. */
void mount_kernel_file_systems(void);

/* Makes /new the root. */
void enter_root(void);

/* Host name, loopback interface, limit of open files. */
void set_up_system(void);

/* What the host wants done, from the files of a directory:
     arguments    the command, each word ended by a NUL byte
     environment  NAME=VALUE, each ended by a NUL byte
     directory    where the command runs
     writable     optional: a directory of the host that the lab may write to */
struct job {
    char **arguments, **environment, *directory, *writable;
};

struct job read_job(const char *directory);

/* Where one stream of the command goes. `send` takes some of the bytes and returns how many, or -1 when it would block;
   `ready` is polled for POLLOUT then, and is -1 where `send` never blocks. */
struct sink {
    ssize_t (*send)(const struct sink *, const char *bytes, size_t count);
    int ready;
};

/* Runs the command, with /dev/null as its input, and `started` when it runs. Returns its exit status as a shell reports it
   when what it wrote has left. */
int run_command(const struct job *job, const struct sink sinks[2], void (*started)(void));
#endif
