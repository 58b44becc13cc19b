/* The first process of the Bochs lab: mounts the disk as root, runs one command there, and sends what it writes and how it
   ends through the port that Bochs copies to its own standard output.

   The job (lab.h) is in /job of the initial file system. On the port, after a mark, are frames: a byte that says what it is,
   four bytes with the payload's length, the lowest first, and the payload:
     u  the command has started     o  its stdout     e  its stderr     x  its exit status, a byte */
#define _GNU_SOURCE
#include "lab.h"
#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/io.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bochs: port_e9_hack. */
enum { PORT = 0xe9 };

static void write_port(const char *bytes, size_t count) {
    /* The compiler does not know that outsb reads the bytes. */
    __asm__ volatile("" ::: "memory");
    outsb(PORT, bytes, count);
}

static void send_frame(char kind, const char *bytes, size_t count) {
    char head[5] = {kind, count, count >> 8, count >> 16, count >> 24};
    write_port(head, sizeof head);
    write_port(bytes, count);
}

static ssize_t send_output(const struct sink *sink, const char *bytes, size_t count) {
    (void)sink;
    send_frame('o', bytes, count);
    return count;
}

static ssize_t send_errors(const struct sink *sink, const char *bytes, size_t count) {
    (void)sink;
    send_frame('e', bytes, count);
    return count;
}

static void report_start(void) { send_frame('u', "", 0); }

static void mount_root(void) {
    /* The driver looks for its disks in the background. */
    for (int tries = 0; access("/dev/sda", F_OK); tries++, usleep(10000))
        if (tries == 3000) fail("find the disk");
    mount_at("ext4", "/dev/sda", "/new", 0, NULL);
}

/* CPUID 0: the vendor is AuthenticAMD or GenuineIntel. */
static int is_amd(void) {
    unsigned leaf, b = 0, c, d;
    return __get_cpuid(0, &leaf, &b, &c, &d) && !memcmp(&b, "Auth", sizeof b);
}

int main(void) {
    static const char mark[] = "\n@martlet-lab@\n";
    if (iopl(3)) fail("iopl");
    write_port(mark, sizeof mark - 1);
    mount_at("proc", "proc", "/proc", 0, NULL);
    mount_at("sysfs", "sysfs", "/sys", 0, NULL);
    mount_at("devtmpfs", "devtmpfs", "/dev", 0, NULL);
    load_modules("/modules/order", is_amd() ? "kvm-intel.ko" : "kvm-amd.ko");
    mount_root();
    struct job job = read_job("/job");
    mount_kernel_file_systems();
    enter_root();
    set_up_system();
    char code = run_command(&job, (struct sink[]){{send_output, -1}, {send_errors, -1}}, report_start);
    send_frame('x', &code, 1);
    power_off();
}
