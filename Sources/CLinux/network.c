#include "CLinux.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>

int martlet_enter_network(int namespace_fd) { return setns(namespace_fd, CLONE_NEWNET); }
int martlet_new_network(void) { return unshare(CLONE_NEWNET); }

const char *martlet_make_tap(int fd, const char *name, int multi, int header, unsigned long offloads) {
    struct ifreq request;
    memset(&request, 0, sizeof request);
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (multi ? IFF_MULTI_QUEUE : 0));
    if (ioctl(fd, TUNSETIFF, &request) < 0) return "TUNSETIFF";
    if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0) return "TUNSETVNETHDRSZ";
    if (ioctl(fd, TUNSETOFFLOAD, offloads) < 0) return "TUNSETOFFLOAD";
    return NULL;
}
const unsigned long martlet_TUNSETOFFLOAD = TUNSETOFFLOAD, martlet_TUNSETQUEUE = TUNSETQUEUE;

int martlet_set_tap_offloads(int fd, unsigned long offloads) { return ioctl(fd, TUNSETOFFLOAD, offloads); }

int martlet_set_tap_queue(int fd, int takes_part) {
    struct ifreq request;
    memset(&request, 0, sizeof request);
    request.ifr_flags = takes_part ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
    return ioctl(fd, TUNSETQUEUE, &request);
}
