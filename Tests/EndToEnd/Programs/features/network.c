// Networks. Each feature runs in a network namespace of its own.
#include "features.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/x_tables.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/ethernet.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <unistd.h>

// From <net/if.h>, which cannot be had together with <linux/if.h>.
extern unsigned if_nametoindex(const char *name);

static void own_network(void) { must(unshare(CLONE_NEWNET), "unshare network namespace"); }

static void packet(void) {
    own_network();
    int fd = must(socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)), "socket AF_PACKET");
    struct sockaddr_ll loopback = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = 1};
    must(bind(fd, (struct sockaddr *)&loopback, sizeof loopback), "bind to lo");
}

static void tun(void) {
    own_network();
    must(mknod(WORK "/tun", S_IFCHR | 0600, makedev(10, 200)), "mknod");
    int fd = must(open(WORK "/tun", O_RDWR), "open tun");
    struct ifreq request = {.ifr_name = "tap0"};
    request.ifr_flags = IFF_TAP | IFF_NO_PI;
    must(ioctl(fd, TUNSETIFF, &request), "TUNSETIFF tap");
    check(if_nametoindex("tap0"), "no interface tap0");
}

// A netlink message that grows; nested attributes are closed by attribute_end.
struct message {
    char bytes[4096];
    size_t length;
};

static struct nlmsghdr *message_begin(struct message *m, int type, int flags, const void *header, size_t size) {
    m->length = NLMSG_ALIGN(m->length);
    struct nlmsghdr *h = (void *)(m->bytes + m->length);
    *h = (struct nlmsghdr){.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags};
    memcpy(NLMSG_DATA(h), header, size);
    m->length += NLMSG_SPACE(size);
    return h;
}

static void message_end(struct message *m, struct nlmsghdr *h) { h->nlmsg_len = m->bytes + m->length - (char *)h; }

static struct nlattr *attribute(struct message *m, int type, const void *data, size_t size) {
    struct nlattr *a = (void *)(m->bytes + m->length);
    *a = (struct nlattr){.nla_len = NLA_HDRLEN + size, .nla_type = type};
    if (size) memcpy(a + 1, data, size);
    m->length += NLA_ALIGN(a->nla_len);
    return a;
}

static void attribute_text(struct message *m, int type, const char *text) { attribute(m, type, text, strlen(text) + 1); }
static struct nlattr *attribute_begin(struct message *m, int type) { return attribute(m, type, NULL, 0); }
static void attribute_end(struct message *m, struct nlattr *a) { a->nla_len = m->bytes + m->length - (char *)a; }

// Sends the message, and reads acknowledgements until all have come or one reports an error.
static void netlink(int protocol, struct message *m, int acknowledgements, const char *what) {
    int fd = must(socket(AF_NETLINK, SOCK_RAW, protocol), "socket AF_NETLINK");
    struct timeval timeout = {5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    must(send(fd, m->bytes, m->length, 0), "%s", what);
    while (acknowledgements > 0) {
        char answer[8192];
        int length = must(recv(fd, answer, sizeof answer, 0), "%s", what);
        for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, length); h = NLMSG_NEXT(h, length)) {
            if (h->nlmsg_type != NLMSG_ERROR) continue;
            int error = -((struct nlmsgerr *)NLMSG_DATA(h))->error;
            if (error) fail(error, "%s", what);
            acknowledgements--;
        }
    }
    close(fd);
}

static void new_link(const char *name, const char *kind, const char *peer, int master) {
    struct message m = {0};
    struct ifinfomsg info = {.ifi_family = AF_UNSPEC};
    struct nlmsghdr *h = message_begin(&m, RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &info, sizeof info);
    attribute_text(&m, IFLA_IFNAME, name);
    if (master) attribute(&m, IFLA_MASTER, &master, 4);
    struct nlattr *link = attribute_begin(&m, IFLA_LINKINFO);
    attribute(&m, IFLA_INFO_KIND, kind, strlen(kind));
    if (peer) {
        struct nlattr *data = attribute_begin(&m, IFLA_INFO_DATA), *other = attribute_begin(&m, VETH_INFO_PEER);
        memcpy(m.bytes + m.length, &info, sizeof info);
        m.length += NLMSG_ALIGN(sizeof info);
        attribute_text(&m, IFLA_IFNAME, peer);
        attribute_end(&m, other);
        attribute_end(&m, data);
    }
    attribute_end(&m, link);
    message_end(&m, h);
    netlink(NETLINK_ROUTE, &m, 1, kind);
}

static void veth(void) {
    own_network();
    new_link("one", "veth", "other", 0);
    check(if_nametoindex("one") && if_nametoindex("other"), "a half of the pair is missing");
}

static void bridge(void) {
    own_network();
    new_link("bridge", "bridge", NULL, 0);
    new_link("port", "veth", "other", if_nametoindex("bridge"));
    // bridge_netfilter: packets that cross the bridge are seen by iptables.
    must(access(WORK "/proc/sys/net/bridge/bridge-nf-call-iptables", F_OK), "bridge-nf-call-iptables");
}

static void dummy(void) {
    own_network();
    new_link("dummy", "dummy", NULL, 0);
}

// iptables-legacy: the kernel creates the nat table when it is first asked for.
static void iptables_nat(int family, int level, int info_option, int target_option) {
    own_network();
    int fd = must(socket(family, SOCK_RAW, IPPROTO_RAW), "socket");
    struct ipt_getinfo info = {.name = "nat"};    // struct ip6t_getinfo is the same
    socklen_t length = sizeof info;
    must(getsockopt(fd, level, info_option, &info, &length), "the nat table");
    check(info.num_entries >= 4, "the nat table has %u entries", info.num_entries);
    struct xt_get_revision target = {.name = "MASQUERADE"};
    length = sizeof target;
    must(getsockopt(fd, level, target_option, &target, &length), "the target MASQUERADE");
}
static void iptables_nat4(void) { iptables_nat(AF_INET, IPPROTO_IP, IPT_SO_GET_INFO, IPT_SO_GET_REVISION_TARGET); }
static void iptables_nat6(void) { iptables_nat(AF_INET6, IPPROTO_IPV6, IP6T_SO_GET_INFO, IP6T_SO_GET_REVISION_TARGET); }

// nft add table T; add chain T nat { type nat hook postrouting priority 100; }; add rule T nat masquerade
static void nft_nat(int family) {
    own_network();
    struct message m = {0};
    struct nfgenmsg batch = {.res_id = htons(NFNL_SUBSYS_NFTABLES)}, table = {.nfgen_family = family};
    int create = NLM_F_ACK | NLM_F_CREATE, subsystem = NFNL_SUBSYS_NFTABLES << 8;
    struct nlmsghdr *h = message_begin(&m, NFNL_MSG_BATCH_BEGIN, 0, &batch, sizeof batch);
    message_end(&m, h);

    h = message_begin(&m, subsystem | NFT_MSG_NEWTABLE, create, &table, sizeof table);
    attribute_text(&m, NFTA_TABLE_NAME, "features");
    message_end(&m, h);

    h = message_begin(&m, subsystem | NFT_MSG_NEWCHAIN, create, &table, sizeof table);
    attribute_text(&m, NFTA_CHAIN_TABLE, "features");
    attribute_text(&m, NFTA_CHAIN_NAME, "nat");
    struct nlattr *hook = attribute_begin(&m, NFTA_CHAIN_HOOK);
    uint32_t number = htonl(NF_INET_POST_ROUTING), priority = htonl(100);
    attribute(&m, NFTA_HOOK_HOOKNUM, &number, 4);
    attribute(&m, NFTA_HOOK_PRIORITY, &priority, 4);
    attribute_end(&m, hook);
    attribute_text(&m, NFTA_CHAIN_TYPE, "nat");
    message_end(&m, h);

    h = message_begin(&m, subsystem | NFT_MSG_NEWRULE, create | NLM_F_APPEND, &table, sizeof table);
    attribute_text(&m, NFTA_RULE_TABLE, "features");
    attribute_text(&m, NFTA_RULE_CHAIN, "nat");
    struct nlattr *list = attribute_begin(&m, NFTA_RULE_EXPRESSIONS), *element = attribute_begin(&m, NFTA_LIST_ELEM);
    attribute_text(&m, NFTA_EXPR_NAME, "masq");
    attribute_end(&m, element);
    attribute_end(&m, list);
    message_end(&m, h);

    h = message_begin(&m, NFNL_MSG_BATCH_END, 0, &batch, sizeof batch);
    message_end(&m, h);
    netlink(NETLINK_NETFILTER, &m, 3, "table, chain and masquerade rule");
}
static void nft_nat4(void) { nft_nat(NFPROTO_IPV4); }
static void nft_nat6(void) { nft_nat(NFPROTO_IPV6); }

// The kernel cuts a backlog to net.core.somaxconn, however long it is.
static void listen_backlog(void) {
    int listener = must(socket(AF_INET, SOCK_STREAM, 0), "socket");
    must(listen(listener, 100000), "listen with a backlog of 100000");
    close(listener);
}

const struct feature network_features[] = {
    {"listen-backlog", listen_backlog},
    {"packet", packet},
    {"tun", tun},
    {"veth", veth},
    {"bridge", bridge},
    {"dummy", dummy},
    {"iptables-nat-ipv4", iptables_nat4},
    {"iptables-nat-ipv6", iptables_nat6},
    {"nft-nat-ipv4", nft_nat4},
    {"nft-nat-ipv6", nft_nat6},
    {0},
};
