// memory MIB: fills so much memory with a pattern and reads all of it back. "ok", or the first difference and exit code 1.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static uint64_t pattern(uint64_t index) { return index * 0x9e3779b97f4a7c15u ^ (index >> 7); }

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    size_t count = strtoull(argv[1], NULL, 10) << 20;
    uint64_t *words = mmap(NULL, count, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (words == MAP_FAILED) return perror("mmap"), 1;
    // Eight words of each page and its first: every page is touched, and no byte of it is another page's.
    for (size_t page = 0; page < count / 4096; page++)
        for (size_t word = 0; word < 512; word += 64) words[page * 512 + word] = pattern(page * 512 + word);
    for (size_t page = 0; page < count / 4096; page++)
        for (size_t word = 0; word < 512; word += 64)
            if (words[page * 512 + word] != pattern(page * 512 + word)) {
                printf("page %zu, word %zu: %llx\n", page, word, (unsigned long long)words[page * 512 + word]);
                return 1;
            }
    puts("ok");
    return 0;
}
