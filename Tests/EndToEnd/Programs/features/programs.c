// Formats of programs.
#include "features.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

// exit(42) by int $0x80 in a 32-bit ELF file. elf(5): header, one program header, code at 0x08048054.
static const unsigned char program32[] = {
    0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,    // 32-bit, little endian
    2, 0, 3, 0, 1, 0, 0, 0, 0x54, 0x80, 0x04, 0x08, 52, 0, 0, 0,    // executable, i386, entry, program headers at 52
    0, 0, 0, 0, 0, 0, 0, 0, 52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0,
    1, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x04, 0x08, 0, 0x80, 0x04, 0x08,    // load offset 0 at 0x08048000
    96, 0, 0, 0, 96, 0, 0, 0, 5, 0, 0, 0, 0, 0x10, 0, 0,
    0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80,    // mov $1, %eax; mov $42, %ebx; int $0x80
};

static void make_program32(const char *path) {
    int fd = must(open(path, O_WRONLY | O_CREAT, 0755), "open %s", path);
    must(write(fd, program32, sizeof program32), "write %s", path);
    close(fd);
}

static void ia32(void) {
    make_program32(WORK "/program32");
    int code = run(WORK "/program32");
    check(code == 42, "a 32-bit program ended with %d, not 42", code);
}

// The interpreter is a copy of this program, because the tmpfs may hide the program itself.
static void binfmt_script(void) {
    static char program[1 << 22];
    int from = must(open("/proc/self/exe", O_RDONLY), "open /proc/self/exe");
    int to = must(open(WORK "/interpreter", O_WRONLY | O_CREAT, 0755), "open interpreter");
    ssize_t length = must(read(from, program, sizeof program), "read /proc/self/exe");
    must(write(to, program, length), "write interpreter");
    close(to);
    write_file(WORK "/script", "#!" WORK "/interpreter exit-42\n");
    must(chmod(WORK "/script", 0755), "chmod");
    int code = run(WORK "/script");
    check(code == 42, "the script ended with %d, not 42", code);
}

const struct feature program_features[] = {
    {"binfmt-script", binfmt_script},
    {"ia32", ia32},
    {0},
};
