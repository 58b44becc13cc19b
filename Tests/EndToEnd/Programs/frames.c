// frames INTERFACE HEX...: sends each frame, which begins with the Ethernet header, as it is.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    int link = socket(AF_PACKET, SOCK_RAW, 0);
    struct sockaddr_ll target = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(argv[1])};
    if (link < 0 || bind(link, (struct sockaddr *)&target, sizeof target) < 0) return perror(argv[1]), 1;
    for (int i = 2; i < argc; i++) {
        unsigned char frame[1514];
        size_t count = 0;
        for (const char *at = argv[i]; count < sizeof frame && sscanf(at, "%2hhx", &frame[count]) == 1; at += 2) count++;
        if (send(link, frame, count, 0) != (ssize_t)count) return perror("send"), 1;
    }
    return 0;
}
