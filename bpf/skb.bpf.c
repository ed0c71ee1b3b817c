/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Concern: the last line, per packet. Runs after nft's NAT, so it sees where a packet really
 * goes: loopback, to the proxy, the resolver or the run's own listener. All else is dropped,
 * whatever became of the other hooks or of nft. */
#include "include/listener.h"
#include "include/share.h"
#include <bpf/bpf_endian.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#define LOOPBACK_IFINDEX 1 /* in every network namespace */
#define TCP_FLAGS_OFFSET 13
#define TCP_SYN 2
#define TCP_ACK 16

struct lw_packet {
	__u8 proto;
	__u8 opens; /* a SYN that is not an answer */
	__u8 to_loopback;
	__u16 dport;
	__u32 tuple_size;
	struct bpf_sock_tuple tuple;
};

static __always_inline int lw_drop(__u32 cause)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &cause);

	if (n)
		*n += 1;
	return 0;
}

/* The tag that governs a socket: its stamp, else the cgroup it was made in. */
static __always_inline __u64 lw_socket_tag(struct __sk_buff *skb, struct lw_stamp **stamp)
{
	struct bpf_sock *sk = skb->sk;

	*stamp = 0;
	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (sk)
		*stamp = bpf_sk_storage_get(&stamps, sk, 0, 0);
	if (*stamp)
		return (*stamp)->tag;
	for (int level = 1; level < LW_LEVELS_MAX; level++) { /* the root is no run */
		__u64 id = bpf_skb_ancestor_cgroup_id(skb, level);
		__u64 *tag;

		if (!id)
			break;
		tag = bpf_map_lookup_elem(&loops, &id);
		if (tag)
			return *tag;
	}
	return 0;
}

static __always_inline int lw_parse(struct __sk_buff *skb, struct lw_packet *p)
{
	__u32 offset;
	__u8 flags = 0;
	__be16 ports[2];

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
			return -1;
		p->proto = ip.protocol;
		p->to_loopback = (ip.daddr & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
		if (ip.frag_off & bpf_htons(0x1fff))
			return -1; /* a later fragment has no ports */
		offset = ip.ihl * 4;
		p->tuple_size = sizeof(p->tuple.ipv4);
		p->tuple.ipv4.saddr = ip.saddr;
		p->tuple.ipv4.daddr = ip.daddr;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, 0, &ip, sizeof(ip)))
			return -1;
		p->proto = ip.nexthdr; /* extension headers are no TCP or UDP: dropped */
		p->to_loopback = ip.daddr.s6_addr32[0] == 0 && ip.daddr.s6_addr32[1] == 0 &&
				 ip.daddr.s6_addr32[2] == 0 &&
				 ip.daddr.s6_addr32[3] == bpf_htonl(1);
		offset = sizeof(ip);
		p->tuple_size = sizeof(p->tuple.ipv6);
		__builtin_memcpy(p->tuple.ipv6.saddr, &ip.saddr, sizeof(ip.saddr));
		__builtin_memcpy(p->tuple.ipv6.daddr, &ip.daddr, sizeof(ip.daddr));
	} else {
		return -1;
	}
	if (p->proto != IPPROTO_TCP && p->proto != IPPROTO_UDP)
		return -1;
	if (bpf_skb_load_bytes(skb, offset, ports, sizeof(ports)))
		return -1;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		p->tuple.ipv4.sport = ports[0];
		p->tuple.ipv4.dport = ports[1];
	} else {
		p->tuple.ipv6.sport = ports[0];
		p->tuple.ipv6.dport = ports[1];
	}
	p->dport = bpf_ntohs(ports[1]);
	if (p->proto == IPPROTO_TCP &&
	    bpf_skb_load_bytes(skb, offset + TCP_FLAGS_OFFSET, &flags, sizeof(flags)))
		return -1;
	p->opens = (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	return 0;
}

/* May this SYN go? To the proxy only under a mark whose record is this socket's: SYNs can be held
 * back for long (TCP_FASTOPEN_CONNECT, repeats), until the nonce is another's. To a listener only
 * if it is the run's own now, at the address that the packet really has. */
static __always_inline int lw_may_open(struct __sk_buff *skb, struct lw_cfg *c,
				       struct lw_stamp *stamp, struct lw_packet *p)
{
	__u32 mark = stamp->flow.mark;
	struct lw_flow *record;

	if (stamp->flags & LW_ST_LOOPBACK)
		return lw_is_own_listener(skb, &p->tuple, p->tuple_size, stamp->tag);
	if (p->dport != c->proxy_port)
		return 0;
	record = bpf_map_lookup_elem(&mflows, &mark);
	return record && record->cookie == stamp->flow.cookie;
}

/* A SYN of nobody's run under a mark of ours: who may set marks would take a run's record. */
static __always_inline int lw_is_forged(struct __sk_buff *skb)
{
	struct lw_packet p = {};
	struct lw_cfg *c;
	__u32 zero = 0;

	if (!skb->mark)
		return 0;
	c = bpf_map_lookup_elem(&cfg, &zero);
	if (!c || (skb->mark & ~LW_NONCE_MASK) != c->mark_base)
		return 0;
	return lw_parse(skb, &p) || p.opens;
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	struct lw_packet p = {};
	struct lw_stamp *stamp;
	struct lw_run *run;
	struct lw_cfg *c;
	__u32 zero = 0;
	__u64 tag = lw_socket_tag(skb, &stamp);

	if (!tag)
		return lw_is_forged(skb) ? lw_drop(LW_C_FORGED) : 1;
	run = bpf_map_lookup_elem(&runs, &tag);
	c = bpf_map_lookup_elem(&cfg, &zero);
	if (!run || !c)
		return lw_drop(LW_C_RUN_UNKNOWN);
	if (run->flags & LW_RUN_REVOKED)
		return lw_drop(LW_C_REVOKED);
	if (!stamp)
		return lw_drop(LW_C_FOREIGN_SOCKET); /* made before the cgroup was registered */
	if (lw_parse(skb, &p) || !p.to_loopback)
		return lw_drop(LW_C_EGRESS);
	if (p.dport == c->dns_port)
		return p.proto != IPPROTO_UDP || lw_may_ask(tag) || lw_drop(LW_C_CROWDED);
	if (p.proto == IPPROTO_TCP && (!p.opens || lw_may_open(skb, c, stamp, &p)))
		return 1;
	return lw_drop(LW_C_EGRESS);
}

SEC("cgroup_skb/ingress")
int ingress(struct __sk_buff *skb)
{
	struct lw_stamp *stamp;
	struct lw_run *run;
	__u64 tag = lw_socket_tag(skb, &stamp);

	if (!tag)
		return 1;
	run = bpf_map_lookup_elem(&runs, &tag);
	if (!run)
		return lw_drop(LW_C_RUN_UNKNOWN);
	if (run->flags & LW_RUN_REVOKED)
		return lw_drop(LW_C_REVOKED);
	return skb->ifindex == LOOPBACK_IFINDEX ? 1 : lw_drop(LW_C_INGRESS);
}

char LICENSE[] __weak SEC("license") = "GPL";
