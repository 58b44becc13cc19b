// pattern SEED BYTES [FILE]: writes so many pseudo-random bytes, the same for the same seed, to FILE or stdout.
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static uint64_t block[8192];

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    uint64_t state = strtoull(argv[1], NULL, 10) * 0x9e3779b97f4a7c15u + 1;
    uint64_t left = strtoull(argv[2], NULL, 10);
    int out = argc > 3 ? open(argv[3], O_WRONLY | O_CREAT | O_TRUNC, 0644) : 1;
    if (out < 0) {
        perror(argv[3]);
        return 1;
    }
    while (left > 0) {
        for (size_t i = 0; i < sizeof block / sizeof *block; i++) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            block[i] = state;
        }
        size_t want = left < sizeof block ? left : sizeof block, done = 0;
        while (done < want) {
            ssize_t n = write(out, (char *)block + done, want - done);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) {
                perror("pattern: write");
                return 1;
            }
            done += (size_t)n;
        }
        left -= want;
    }
    return close(out) == 0 ? 0 : 1;
}
