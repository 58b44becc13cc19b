// What two containers of a pod must have in common where both mount a directory of the host.
//
//   sharing serve DIR          makes what is checked in DIR, says "serving", and answers one checker after another
//   sharing check DIR [ro]     a line "ok WHAT" or "bad WHAT: …" for each thing; "ro": DIR is read-only here
//   sharing same FILE FILE     whether two paths are one file: numbers, locks, mappings
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const char *directory;

static const char *path(const char *name) {
    static char paths[8][4200];
    static int next;
    char *result = paths[next++ % 8];
    snprintf(result, sizeof paths[0], "%s/%s", directory, name);
    return result;
}

static int must(int result, const char *what) {
    if (result < 0) {
        printf("bad %s: %s\n", what, strerror(errno));
        exit(1);
    }
    return result;
}

static void expect(int condition, const char *what) { printf("%s %s\n", condition ? "ok" : "bad", what); }

static struct sockaddr_un address(void) {
    struct sockaddr_un result = {.sun_family = AF_UNIX};
    // Below the length limit whatever the directory is.
    must(chdir(directory), directory);
    strcpy(result.sun_path, "socket");
    return result;
}

static char *map(const char *file, int protection) {
    int fd = must(open(file, protection & PROT_WRITE ? O_RDWR : O_RDONLY), file);
    char *bytes = mmap(NULL, 4096, protection, MAP_SHARED, fd, 0);
    if (bytes == MAP_FAILED) must(-1, "mmap");
    close(fd);
    return bytes;
}

static int create(const char *name) {
    int fd = must(open(path(name), O_RDWR | O_CREAT | O_TRUNC, 0644), name);
    must(ftruncate(fd, 4096), name);
    return fd;
}

/// Answers one byte of the checker with one line.
static void answer(int peer, char *bytes, int fifo, int events, int opened) {
    char command, text[4096] = "?";
    while (read(peer, &command, 1) == 1) {
        struct stat status;
        memset(text, 0, sizeof text);
        if (command == 'm') snprintf(text, sizeof text, "%c", bytes[0]);
        if (command == 'w') bytes[1] = 'B', strcpy(text, "written");
        if (command == 'f' && read(fifo, text, 100) < 0) strcpy(text, "nothing");
        if (command == 'r') strcpy(text, access(path("a"), F_OK) != 0 && access(path("b"), F_OK) == 0 ? "moved" : "not");
        if (command == 'u') snprintf(text, sizeof text, "%d", fstat(opened, &status) < 0 ? -1 : (int)status.st_nlink);
        if (command == 'i') {
            char buffer[16384] __attribute__((aligned(8)));
            ssize_t count = read(events, buffer, sizeof buffer);
            for (char *at = buffer; at < buffer + (count < 0 ? 0 : count);) {
                struct inotify_event *event = (struct inotify_event *)at;
                if (event->len && strstr(event->name, "event"))
                    strcat(text, event->mask & IN_CREATE ? "made " : event->mask & IN_DELETE ? "gone "
                        : event->mask & IN_MOVED_FROM ? "from " : "to ");
                at += sizeof *event + event->len;
            }
        }
        if (command == 'n') {
            close(creat(path("a"), 0644));
            unlink(path("b"));
            strcpy(text, "new");
        }
        strcat(text, "\n");
        must(write(peer, text, strlen(text)), "answer");
    }
    close(peer);
}

static void serve(void) {
    struct sockaddr_un name = address();
    unlink("socket");
    int listener = must(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
    must(bind(listener, (struct sockaddr *)&name, sizeof name), "bind");
    must(listen(listener, 4), "listen");
    must(chmod("socket", 0666), "chmod");
    must(flock(create("flock"), LOCK_EX), "flock");
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
    must(fcntl(create("posix"), F_SETLK, &range), "fcntl");
    close(create("map"));
    close(create("a"));
    int opened = create("open");
    char *bytes = map(path("map"), PROT_READ | PROT_WRITE);
    unlink(path("fifo"));
    must(mkfifo(path("fifo"), 0666), "mkfifo");
    int fifo = must(open(path("fifo"), O_RDWR | O_NONBLOCK), "fifo");
    int events = must(inotify_init1(IN_NONBLOCK), "inotify_init1");
    must(inotify_add_watch(events, directory, IN_CREATE | IN_DELETE | IN_MOVE), "inotify_add_watch");
    printf("serving\n");
    for (;;) answer(must(accept(listener, NULL, NULL), "accept"), bytes, fifo, events, opened);
}

static int peer;

static const char *ask(char command) {
    static char line[4096];
    size_t length = 0;
    must(write(peer, &command, 1), "ask");
    while (length + 1 < sizeof line && read(peer, line + length, 1) == 1 && line[length] != '\n') length++;
    line[length] = 0;
    return line;
}

static int check(int readOnly) {
    struct sockaddr_un name = address();
    peer = must(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
    must(connect(peer, (struct sockaddr *)&name, sizeof name), "socket");
    printf("ok socket\n");
    int lock = must(open(path("flock"), O_RDONLY), "flock");
    expect(flock(lock, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, "flock");
    char *bytes = map(path("map"), readOnly ? PROT_READ : PROT_READ | PROT_WRITE);
    expect(!strcmp(ask('w'), "written") && bytes[1] == 'B', "mapping, written there");
    if (readOnly) {
        expect(open(path("new"), O_WRONLY | O_CREAT, 0644) < 0 && errno == EROFS, "read-only: create");
        expect(open(path("map"), O_RDWR) < 0 && errno == EROFS, "read-only: open");
        expect(unlink(path("map")) < 0 && errno == EROFS, "read-only: unlink");
        expect(open(path("fifo"), O_WRONLY | O_NONBLOCK) >= 0, "fifo");
        return 0;
    }
    bytes[0] = 'A';
    expect(!strcmp(ask('m'), "A"), "mapping, written here");
    struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
    int posix = must(open(path("posix"), O_RDWR), "posix");
    expect(fcntl(posix, F_SETLK, &range) < 0 && (errno == EAGAIN || errno == EACCES), "POSIX lock");
    range.l_start = 10;
    expect(fcntl(posix, F_SETLK, &range) == 0, "POSIX lock of another range");
    int fifo = must(open(path("fifo"), O_WRONLY | O_NONBLOCK), "fifo");
    must(write(fifo, "through", 7), "fifo");
    expect(!strcmp(ask('f'), "through"), "fifo");
    ask('i');
    close(must(creat(path("event-1"), 0644), "create"));
    must(rename(path("event-1"), path("event-2")), "rename");
    must(unlink(path("event-2")), "unlink");
    expect(!strcmp(ask('i'), "made from to gone "), "inotify");
    ask('n');
    must(rename(path("a"), path("b")), "rename");
    expect(!strcmp(ask('r'), "moved"), "rename");
    struct stat status;
    int wasThere = stat(path("open"), &status) == 0;
    if (wasThere) must(unlink(path("open")), "unlink");
    expect(!strcmp(ask('u'), "0"), "unlink");
    return 0;
}

static int same(const char *one, const char *two) {
    struct stat first, second;
    must(stat(one, &first), one);
    must(stat(two, &second), two);
    expect(first.st_dev == second.st_dev && first.st_ino == second.st_ino, "numbers");
    int lock = must(open(one, O_RDONLY), one), other = must(open(two, O_RDONLY), two);
    must(flock(lock, LOCK_EX), "flock");
    expect(flock(other, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, "flock");
    char *written = map(one, PROT_READ | PROT_WRITE), *seen = map(two, PROT_READ);
    written[0] = 'S';
    expect(seen[0] == 'S', "mapping");
    return 0;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    if (argc == 4 && !strcmp(argv[1], "same")) return same(argv[2], argv[3]);
    if (argc < 3) return 2;
    directory = argv[2];
    if (!strcmp(argv[1], "serve")) serve();
    return check(argc > 3);
}
