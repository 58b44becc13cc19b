// events DIRECTORY: what happens in it, a line for each event (inotify(7)): "made NAME", "gone NAME", "from NAME", "to NAME".
// First "watching".
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

int main(int argc, char **argv) {
    static const struct { unsigned mask; const char *word; } words[] = {
        {IN_CREATE, "made"}, {IN_DELETE, "gone"}, {IN_MOVED_FROM, "from"}, {IN_MOVED_TO, "to"}};
    char bytes[65536] __attribute__((aligned(__alignof__(struct inotify_event))));
    int queue = inotify_init();
    if (argc != 2) return 2;
    if (inotify_add_watch(queue, argv[1], IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO) < 0)
        return perror(argv[1]), 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("watching\n");
    for (;;) {
        ssize_t count = read(queue, bytes, sizeof bytes);
        if (count <= 0) return 1;
        for (char *at = bytes; at < bytes + count;) {
            struct inotify_event *event = (struct inotify_event *)at;
            for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
                if (event->mask & words[i].mask) printf("%s %s\n", words[i].word, event->len ? event->name : "");
            at += sizeof *event + event->len;
        }
    }
}
