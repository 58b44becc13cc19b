// Both ends of connections over a Unix socket. The client's first byte says what the server does with a connection.
//
//     sockets serve PATH     listens; writes a line for each connection that has ended: what it was, and the bytes received
//     sockets echo PATH N    sends N bytes while it receives the same
//     sockets many PATH N    N connections at once, each with an echo
//     sockets half PATH N    ends its sending after N bytes, and then receives how many came
//     sockets first PATH     receives an end first, and sends after that
//     sockets pass PATH      passes a descriptor
//     sockets take PATH      is passed one
//     sockets hold PATH      a connection on which nothing moves, until it ends
//     sockets try PATH       whether a connection comes about: a byte and its echo
//     sockets ask ADDRESS X  sends the text to UDP port 53, and writes the reply
//     sockets answer PORT    sends each datagram back to its sender
//
// A client writes what it found, `ok` or else, on one line.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct sockaddr_un address(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strncpy(a.sun_path, path, sizeof a.sun_path - 1);
    return a;
}

static int write_all(int fd, const void *bytes, size_t count) {
    for (size_t done = 0; done < count;) {
        ssize_t n = write(fd, (const char *)bytes + done, count - done);
        if (n <= 0) return -1;
        done += (size_t)n;
    }
    return 0;
}

static unsigned char pattern(size_t i) { return (unsigned char)(i * 31 + (i >> 8)); }

// Sends `count` bytes of the pattern.
static int send_pattern(int fd, size_t count) {
    static __thread unsigned char buffer[8192];
    for (size_t done = 0; done < count;) {
        size_t part = count - done < sizeof buffer ? count - done : sizeof buffer;
        for (size_t i = 0; i < part; i++) buffer[i] = pattern(done + i);
        if (write_all(fd, buffer, part) != 0) return -1;
        done += part;
    }
    return 0;
}

// Receives to the end; the number of bytes, or -1 when they are not the pattern.
static ssize_t receive_pattern(int fd) {
    static __thread unsigned char buffer[8192];
    size_t done = 0;
    ssize_t n;
    while ((n = read(fd, buffer, sizeof buffer)) > 0) {
        for (ssize_t i = 0; i < n; i++) if (buffer[i] != pattern(done + (size_t)i)) return -1;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

static void pass(int fd, int passed) {
    union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int))]; } control = {0};
    struct iovec part = {.iov_base = "p", .iov_len = 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &passed, sizeof passed);
    if (sendmsg(fd, &message, 0) < 0) perror("sendmsg");
}

static void *serve(void *argument) {
    int fd = (int)(intptr_t)argument;
    char kind = 0, buffer[8192], line[64];
    size_t total = 0;
    ssize_t n;
    if (read(fd, &kind, 1) != 1) { close(fd); return NULL; }
    if (kind == 'f') { write_all(fd, "first", 5); shutdown(fd, SHUT_WR); }
    if (kind == 't') pass(fd, 1);
    while ((n = read(fd, buffer, sizeof buffer)) > 0) {
        total += (size_t)n;
        if (kind == 'e' && write_all(fd, buffer, (size_t)n) != 0) break;
    }
    if (kind == 'h') { sprintf(line, "%zu", total); write_all(fd, line, strlen(line)); }
    close(fd);
    sprintf(line, "%c %zu\n", kind, total);
    write_all(1, line, strlen(line));
    return NULL;
}

static void start(void *(*body)(void *), intptr_t argument, pthread_t *thread) {
    if (pthread_create(thread, NULL, body, (void *)argument) != 0) { perror("pthread_create"); exit(1); }
}

static int open_connection(const char *path, char kind) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = address(path);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) { printf("connect: %s\n", strerror(errno)); exit(0); }
    if (write_all(fd, &kind, 1) != 0) { printf("write: %s\n", strerror(errno)); exit(0); }
    return fd;
}

struct sending { int fd; size_t count; };
static void *send_and_end(void *argument) {
    struct sending *sending = argument;
    send_pattern(sending->fd, sending->count);
    shutdown(sending->fd, SHUT_WR);
    return NULL;
}

static ssize_t echo(int fd, size_t count) {
    struct sending sending = {fd, count};
    pthread_t thread;
    start(send_and_end, (intptr_t)&sending, &thread);
    ssize_t received = receive_pattern(fd);
    pthread_join(thread, NULL);
    return received;
}

static const char *the_path;
static int good;
static void *one_of_many(void *argument) {
    if (echo((int)(intptr_t)argument, 20000) == 20000) __sync_fetch_and_add(&good, 1);
    return NULL;
}

static void many(size_t count) {
    pthread_t *threads = calloc(count, sizeof *threads);
    int *sockets = calloc(count, sizeof *sockets);
    for (size_t i = 0; i < count; i++) sockets[i] = open_connection(the_path, 'e');
    for (size_t i = 0; i < count; i++) start(one_of_many, sockets[i], &threads[i]);
    for (size_t i = 0; i < count; i++) pthread_join(threads[i], NULL);
    for (size_t i = 0; i < count; i++) close(sockets[i]);
    printf("%d good\n", good);
}

static void ask(const char *server, const char *text) {
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(53)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(53)};
    int is_v4 = inet_pton(AF_INET, server, &v4.sin_addr) == 1;
    char reply[256];
    if (!is_v4) inet_pton(AF_INET6, server, &v6.sin6_addr);
    int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    // Connected: a reply from elsewhere does not count.
    if (connect(fd, is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6, is_v4 ? sizeof v4 : sizeof v6) != 0) perror("connect");
    if (send(fd, text, strlen(text), 0) < 0) perror("send");
    ssize_t n = recv(fd, reply, sizeof reply - 1, 0);
    printf("%.*s\n", n > 0 ? (int)n : 0, reply);
}

static int answer(int port) {
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)}, sender;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&own, sizeof own) != 0) { perror("bind"); return 1; }
    for (char bytes[2048];;) {
        socklen_t length = sizeof sender;
        ssize_t n = recvfrom(fd, bytes, sizeof bytes, 0, (struct sockaddr *)&sender, &length);
        if (n >= 0) sendto(fd, bytes, (size_t)n, 0, (struct sockaddr *)&sender, length);
    }
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    const char *mode = argv[1];
    size_t count = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    char buffer[64] = "";
    signal(SIGPIPE, SIG_IGN);
    the_path = argv[2];
    if (!strcmp(mode, "serve")) {
        int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;
        struct sockaddr_un a = address(the_path);
        if (bind(listener, (struct sockaddr *)&a, sizeof a) != 0 || listen(listener, 512) != 0) { perror("bind"); return 1; }
        pthread_t thread;
        write_all(1, "ready\n", 6);
        while ((fd = accept(listener, NULL, NULL)) >= 0) {
            start(serve, fd, &thread);
            pthread_detach(thread);
        }
        return 1;
    }
    if (!strcmp(mode, "answer")) return answer(atoi(the_path));
    if (!strcmp(mode, "many")) {
        many(count);
        return 0;
    }
    if (!strcmp(mode, "ask")) {
        ask(the_path, argv[3]);
        return 0;
    }
    int fd = open_connection(the_path, mode[0] == 't' && mode[1] == 'r' ? 'e' : mode[0]);
    if (!strcmp(mode, "echo")) {
        puts(echo(fd, count) == (ssize_t)count ? "ok" : "not the same");
    } else if (!strcmp(mode, "half")) {
        send_pattern(fd, count);
        shutdown(fd, SHUT_WR);
        if (read(fd, buffer, sizeof buffer - 1) < 0) perror("read");
        puts(strtoul(buffer, NULL, 10) == count && read(fd, buffer, 1) == 0 ? "ok" : buffer);
    } else if (!strcmp(mode, "first")) {
        int ended = recv(fd, buffer, 5, MSG_WAITALL) == 5 && !memcmp(buffer, "first", 5) && read(fd, buffer, 1) == 0;
        puts(ended && send_pattern(fd, 70000) == 0 ? "ok" : "no end");
    } else if (!strcmp(mode, "pass")) {
        pass(fd, 1);
        puts(read(fd, buffer, 1) <= 0 ? "ok" : "answered");
    } else if (!strcmp(mode, "take")) {
        puts(read(fd, buffer, 1) <= 0 ? "ok" : "came");
    } else if (!strcmp(mode, "hold")) {
        puts("held");
        fflush(stdout);
        puts(read(fd, buffer, 1) <= 0 ? "ended" : "came");
    } else if (!strcmp(mode, "try")) {
        write_all(fd, "x", 1);
        ssize_t n = read(fd, buffer, 1);
        puts(n == 1 ? "ok" : n == 0 ? "end" : strerror(errno));
    }
    return 0;
}
