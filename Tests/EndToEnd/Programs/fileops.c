// Random file operations on a directory against a model in memory.
//
//   fileops DIRECTORY SECONDS SEED
//
// Prints the first difference and exits with 1, or prints `ok N operations` and exits with 0. Build it static: it runs
// in a container. The model is a table of files (bytes) and names; two names may be one file (hard links).
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { NAMES = 24, FILES = 32, MAXIMUM = 192 << 10, DIRECTORIES = 4 };

struct file { int used, links, opened; size_t size; unsigned char *bytes; };
static struct file files[FILES];
static int name_file[NAMES];   // index of the file that has this name, or -1
static int name_dir[NAMES];    // directory that the name is in
static struct { int fd, file; } open_file = {-1, -1};
static char base[4096];
static unsigned long operations;
static uint64_t state;
static unsigned char buffer[MAXIMUM];
static const char *doing = "start";

static uint64_t next(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}
static size_t below(size_t n) { return n ? next() % n : 0; }

static void __attribute__((noreturn, format(printf, 1, 2))) differ(const char *format, ...) {
    va_list list;
    va_start(list, format);
    printf("difference after %lu operations, in %s: ", operations, doing);
    vprintf(format, list);
    printf("\n");
    exit(1);
}

static const char *path(int name) {
    static char text[4][4200];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(text[turn], sizeof text[turn], "%s/d%d/n%d", base, name_dir[name], name);
    return text[turn];
}

static int name_with_file(void) {
    int start = (int)below(NAMES);
    for (int i = 0; i < NAMES; i++) {
        int n = (start + i) % NAMES;
        if (name_file[n] >= 0) return n;
    }
    return -1;
}
static int free_name(void) {
    int start = (int)below(NAMES);
    for (int i = 0; i < NAMES; i++) {
        int n = (start + i) % NAMES;
        if (name_file[n] < 0) return n;
    }
    return -1;
}

static void unreference(int f) {
    if (files[f].links > 0 || files[f].opened) return;
    free(files[f].bytes);
    memset(&files[f], 0, sizeof files[f]);
}
static void lose_name(int n) {
    int f = name_file[n];
    name_file[n] = -1;
    files[f].links--;
    unreference(f);
}

// Makes the model's file at least `end` bytes long.
static void extend(struct file *f, size_t end) { if (end > f->size) f->size = end; }

static int use(int n, int flags) {
    if (open_file.fd >= 0 && open_file.file == name_file[n] && below(2)) return dup(open_file.fd);
    int fd = open(path(n), flags);
    if (fd < 0) differ("open %s: %s", path(n), strerror(errno));
    return fd;
}

static void check_size(int fd, struct file *f) {
    struct stat status;
    if (fstat(fd, &status) < 0) differ("fstat: %s", strerror(errno));
    if ((size_t)status.st_size != f->size) differ("size %zu, expected %zu", (size_t)status.st_size, f->size);
    if ((int)status.st_nlink != f->links) differ("%d links, expected %d", (int)status.st_nlink, f->links);
}

static void compare(const unsigned char *got, const unsigned char *want, size_t start, size_t length) {
    for (size_t i = 0; i < length; i++)
        if (got[i] != want[i]) differ("byte %zu is 0x%02x, expected 0x%02x", start + i, got[i], want[i]);
}

static void do_create(void) {
    doing = "create";
    int n = free_name(), f = 0;
    while (f < FILES && files[f].used) f++;
    if (n < 0 || f == FILES) return;
    name_dir[n] = (int)below(DIRECTORIES);
    int fd = open(path(n), O_CREAT | O_EXCL | O_RDWR, 0644);
    if (fd < 0) differ("%s: %s", path(n), strerror(errno));
    files[f] = (struct file){.used = 1, .links = 1, .bytes = calloc(1, MAXIMUM)};
    name_file[n] = f;
    check_size(fd, &files[f]);
    close(fd);
}

static void do_write(int n) {
    doing = "write";
    struct file *f = &files[name_file[n]];
    size_t offset = below(MAXIMUM - 1), length = 1 + below(below(4) ? 5000 : 70000);
    if (length > MAXIMUM - offset) length = MAXIMUM - offset;
    for (size_t i = 0; i < length; i++) buffer[i] = (unsigned char)next();
    int append = !below(5) && f->size + length <= MAXIMUM;
    int fd = append ? open(path(n), O_WRONLY | O_APPEND) : use(n, O_RDWR);
    if (fd < 0) differ("open: %s", strerror(errno));
    if (append) offset = f->size;
    ssize_t done = append ? write(fd, buffer, length) : pwrite(fd, buffer, length, (off_t)offset);
    if (done != (ssize_t)length) differ("%zd of %zu bytes: %s", done, length, strerror(errno));
    memcpy(f->bytes + offset, buffer, length);
    extend(f, offset + length);
    check_size(fd, f);
    if (!below(20) && fsync(fd) < 0) differ("fsync: %s", strerror(errno));
    close(fd);
}

static void do_read(int n) {
    doing = "read";
    struct file *f = &files[name_file[n]];
    size_t offset = below(MAXIMUM), length = 1 + below(70000);
    size_t want = offset >= f->size ? 0 : f->size - offset < length ? f->size - offset : length;
    if (length > sizeof buffer) length = sizeof buffer;
    int fd = use(n, O_RDWR);
    ssize_t got = pread(fd, buffer, length, (off_t)offset);
    if (got != (ssize_t)want) differ("%zd bytes at %zu, expected %zu: %s", got, offset, want, strerror(errno));
    compare(buffer, f->bytes + offset, offset, want);
    close(fd);
}

static void do_truncate(int n) {
    doing = "truncate";
    struct file *f = &files[name_file[n]];
    size_t size = below(5) ? below(MAXIMUM) : 0;
    int result;
    if (size == 0 && below(2)) {
        int fd = open(path(n), O_RDWR | O_TRUNC);
        result = fd < 0 ? -1 : close(fd);
    } else if (below(2)) {
        result = truncate(path(n), (off_t)size);
    } else {
        int fd = use(n, O_RDWR);
        result = ftruncate(fd, (off_t)size);
        close(fd);
    }
    if (result < 0) differ("to %zu: %s", size, strerror(errno));
    if (size < f->size) memset(f->bytes + size, 0, f->size - size);
    f->size = size;
}

static void do_map(int n) {
    doing = "mmap";
    struct file *f = &files[name_file[n]];
    if (f->size == 0) return;
    int fd = use(n, O_RDWR);
    unsigned char *map = mmap(NULL, f->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) differ("mmap: %s", strerror(errno));
    size_t start = below(f->size), length = 1 + below(f->size - start < 9000 ? f->size - start : 9000);
    if (length > f->size - start) length = f->size - start;
    if (below(2)) {
        for (size_t i = 0; i < length; i++) map[start + i] = f->bytes[start + i] = (unsigned char)next();
        if (below(2) && msync(map, f->size, MS_SYNC) < 0) differ("msync: %s", strerror(errno));
    } else {
        compare(map + start, f->bytes + start, start, length);
    }
    if (munmap(map, f->size) < 0) differ("munmap: %s", strerror(errno));
    close(fd);
}

static void do_fallocate(int n) {
    doing = "fallocate";
    struct file *f = &files[name_file[n]];
    size_t offset = below(MAXIMUM - 1), length = 1 + below(MAXIMUM - 1 - offset);
    int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE};
    int mode = modes[below(3)];
    int fd = use(n, O_RDWR);
    if (fallocate(fd, mode, (off_t)offset, (off_t)length) < 0) {
        if (errno != EOPNOTSUPP) differ("mode %d: %s", mode, strerror(errno));
        close(fd);
        return;
    }
    if (mode == 0) extend(f, offset + length);
    if (mode & FALLOC_FL_PUNCH_HOLE && offset < f->size)
        memset(f->bytes + offset, 0, length < f->size - offset ? length : f->size - offset);
    check_size(fd, f);
    close(fd);
}

static void do_rename(int n) {
    doing = "rename";
    int m = (int)below(NAMES), from = name_file[n];
    if (m == n) return;
    char old[4200];
    if (name_file[m] < 0) name_dir[m] = (int)below(DIRECTORIES);
    snprintf(old, sizeof old, "%s", path(n));
    if (name_file[m] >= 0 && below(3) == 0) {
        doing = "rename exchange";
        if (renameat2(AT_FDCWD, old, AT_FDCWD, path(m), RENAME_EXCHANGE) < 0) differ("%s: %s", old, strerror(errno));
        name_file[n] = name_file[m];
        name_file[m] = from;
        return;
    }
    if (name_file[m] >= 0 && below(3) == 0) {
        doing = "rename without replacing";
        if (renameat2(AT_FDCWD, old, AT_FDCWD, path(m), RENAME_NOREPLACE) == 0 || errno != EEXIST)
            differ("%s: %s, expected EEXIST", old, strerror(errno));
        return;
    }
    if (rename(old, path(m)) < 0) differ("%s to %s: %s", old, path(m), strerror(errno));
    if (name_file[m] == from) return;  // two names of one file: nothing happens
    if (name_file[m] >= 0) lose_name(m);
    name_file[m] = from;
    name_file[n] = -1;
}

static void do_link(int n) {
    doing = "link";
    int m = free_name();
    if (m < 0) return;
    name_dir[m] = (int)below(DIRECTORIES);
    if (link(path(n), path(m)) < 0) differ("%s to %s: %s", path(n), path(m), strerror(errno));
    name_file[m] = name_file[n];
    files[name_file[n]].links++;
}

static void do_unlink(int n) {
    doing = "unlink";
    if (unlink(path(n)) < 0) differ("%s: %s", path(n), strerror(errno));
    lose_name(n);
    if (access(path(n), F_OK) == 0) differ("%s is still there", path(n));
}

// Keeps one file open across other operations, also when its names go.
static void do_hold(int n) {
    doing = "hold";
    if (open_file.fd >= 0) {
        struct file *f = &files[open_file.file];
        check_size(open_file.fd, f);
        size_t length = f->size < sizeof buffer ? f->size : sizeof buffer;
        ssize_t got = pread(open_file.fd, buffer, length, 0);
        if (got != (ssize_t)length) differ("%zd of %zu bytes: %s", got, length, strerror(errno));
        compare(buffer, f->bytes, 0, length);
        close(open_file.fd);
        open_file.fd = -1;
        f->opened = 0;
        unreference(open_file.file);
        return;
    }
    open_file.file = name_file[n];
    open_file.fd = open(path(n), O_RDWR);
    if (open_file.fd < 0) differ("open %s: %s", path(n), strerror(errno));
    files[open_file.file].opened = 1;
}

// Compares everything: names, types, sizes, bytes.
static void check_all(void) {
    doing = "full check";
    for (int d = 0; d < DIRECTORIES; d++) {
        char text[4200];
        snprintf(text, sizeof text, "%s/d%d", base, d);
        DIR *directory = opendir(text);
        if (!directory) differ("opendir %s: %s", text, strerror(errno));
        int seen = 0, expected = 0;
        for (int n = 0; n < NAMES; n++) expected += name_file[n] >= 0 && name_dir[n] == d;
        for (struct dirent *e; (e = readdir(directory));) {
            if (e->d_name[0] == '.') continue;
            int n = atoi(e->d_name + 1);
            if (n < 0 || n >= NAMES || name_file[n] < 0 || name_dir[n] != d) differ("%s/%s should not be there", text, e->d_name);
            if (e->d_type != DT_REG && e->d_type != DT_UNKNOWN) differ("%s/%s has type %d", text, e->d_name, e->d_type);
            seen++;
        }
        closedir(directory);
        if (seen != expected) differ("%s has %d names, expected %d", text, seen, expected);
    }
    for (int n = 0; n < NAMES; n++) {
        if (name_file[n] < 0) continue;
        struct file *f = &files[name_file[n]];
        int fd = open(path(n), O_RDONLY);
        if (fd < 0) differ("open %s: %s", path(n), strerror(errno));
        check_size(fd, f);
        ssize_t got = pread(fd, buffer, sizeof buffer, 0);
        if (got != (ssize_t)f->size) differ("%s: %zd of %zu bytes", path(n), got, f->size);
        compare(buffer, f->bytes, 0, f->size);
        close(fd);
    }
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: fileops DIRECTORY SECONDS SEED\n");
        return 2;
    }
    snprintf(base, sizeof base, "%s", argv[1]);
    time_t end = time(NULL) + atoi(argv[2]);
    state = strtoull(argv[3], NULL, 0) * 0x9e3779b97f4a7c15u | 1;
    for (int n = 0; n < NAMES; n++) name_file[n] = -1;
    for (int d = 0; d < DIRECTORIES; d++) {
        char text[4200];
        snprintf(text, sizeof text, "%s/d%d", base, d);
        if (mkdir(text, 0755) < 0) differ("mkdir %s: %s", text, strerror(errno));
    }
    while (operations % 32 || time(NULL) < end) {
        int n = name_with_file();
        size_t what = n < 0 ? 0 : below(100);
        if (what < 10) do_create();
        else if (what < 35) do_write(n);
        else if (what < 55) do_read(n);
        else if (what < 63) do_truncate(n);
        else if (what < 75) do_map(n);
        else if (what < 80) do_fallocate(n);
        else if (what < 86) do_rename(n);
        else if (what < 90) do_link(n);
        else if (what < 95) do_unlink(n);
        else if (what < 98) do_hold(n);
        else check_all();
        operations++;
    }
    check_all();
    printf("ok %lu operations\n", operations);
    return 0;
}
