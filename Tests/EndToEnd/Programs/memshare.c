// Memory that processes of several containers share.
//
//     memshare put KEY TEXT    makes a System V segment and leaves it
//     memshare get KEY         its text, or "none"
//     memshare map FILE TEXT   writes through a shared mapping of the file
//     memshare see FILE        reads through one, or "none"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    const int writes = argc > 3, is_segment = !strcmp(argv[1], "put") || !strcmp(argv[1], "get");
    char *bytes;
    if (is_segment) {
        int id = shmget(atoi(argv[2]), 4096, writes ? IPC_CREAT | 0666 : 0);
        if (id < 0) return puts("none"), 0;
        bytes = shmat(id, NULL, 0);
    } else {
        int fd = open(argv[2], writes ? O_RDWR | O_CREAT : O_RDWR, 0666);
        if (fd < 0) return puts("none"), 0;
        if (writes && ftruncate(fd, 4096) != 0) return perror("ftruncate"), 1;
        bytes = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (bytes == (void *)-1) return perror("map"), 1;
    if (writes) strcpy(bytes, argv[3]);
    puts(bytes);
    return 0;
}
