// Networks: namespaces, whose calls need _GNU_SOURCE, and tun(4)'s requests, which are macros that Swift can't import.
#pragma once

#include <linux/netlink.h>
#include <stdint.h>

// setns(2) and unshare(2) for a network namespace; both concern the calling thread alone.
int martlet_enter_network(int namespace_fd);
int martlet_new_network(void);

// Makes the open /dev/net/tun `fd` a queue of the tap `name` (TUNSETIFF: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, and
// IFF_MULTI_QUEUE when `multi` is not 0), with a header of `header` bytes (TUNSETVNETHDRSZ) and the offloads in `offloads`
// (TUNSETOFFLOAD, TUN_F_*). Returns the name of the step that failed, or NULL.
const char *martlet_make_tap(int fd, const char *name, int multi, int header, unsigned long offloads);

enum { MARTLET_TUN_F_CSUM = 1, MARTLET_TUN_F_TSO4 = 2, MARTLET_TUN_F_TSO6 = 4, MARTLET_TUN_F_TSO_ECN = 8 };
// TUNSETOFFLOAD.
int martlet_set_tap_offloads(int fd, unsigned long offloads);

// Whether a queue of a tap with several gets and sends frames (TUNSETQUEUE). Fails where it is so already.
int martlet_set_tap_queue(int fd, int takes_part);
// The numbers of both requests.
extern const unsigned long martlet_TUNSETOFFLOAD, martlet_TUNSETQUEUE;
