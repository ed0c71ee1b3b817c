/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Concern: datagrams without connect(). Name service goes to our resolver and comes back under
 * the asked server's name; everything else of a run is refused. Mapped addresses and AF_INET
 * addresses on AF_INET6 sockets arrive at the 4 hooks (sendmsg) or as mapped (recvmsg). */
#include "include/gate.h"
#include "include/share.h"

/* Returns 0 no, 1 as it is, 2 to the resolver. */
static __always_inline int lw_sendmsg(struct bpf_sock_addr *ctx, const __u32 *a)
{
	__u16 port = bpf_ntohs((__u16)ctx->user_port);
	struct lw_cfg *c = lw_cfg();
	struct lw_stamp *s;
	struct lw_who w;
	int gate;

	if (!c)
		return 0;
	gate = lw_gate(ctx, &w, &s);
	if (gate == LW_GATE_BYSTANDER)
		return lw_bystander(ctx, c, a, port);
	if (gate != LW_GATE_PASS || !s)
		return 0;
	/* A connected mapped socket comes here with the peer that connect6 rewrote. */
	if ((s->flags & LW_ST_DNS) && port == c->dns_port && lw_is_loopback(a))
		return 1;
	if (port != 53)
		return lw_deny(LW_C_UDP, w.tag);
	if (!lw_may_ask(w.tag))
		return lw_refuse_soft(LW_EAGAIN, LW_C_CROWDED, w.tag);
	s->flags = LW_ST_DNS;
	__builtin_memcpy(s->dns_addr, a, sizeof(s->dns_addr));
	s->dns_port = port;
	return 2;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	__u32 a[4] = {0, 0, bpf_htonl(0xffff), ctx->user_ip4};
	int verdict = lw_sendmsg(ctx, a);
	struct lw_cfg *c = lw_cfg();

	if (verdict == 2 && c) {
		ctx->user_ip4 = bpf_htonl(0x7f000001);
		ctx->user_port = bpf_htons(c->dns_port);
	}
	return verdict != 0;
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	__u32 a[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	int verdict = lw_sendmsg(ctx, a);
	struct lw_cfg *c = lw_cfg();

	if (verdict == 2 && c) {
		ctx->user_ip6[0] = 0;
		ctx->user_ip6[1] = 0;
		ctx->user_ip6[2] = 0;
		ctx->user_ip6[3] = bpf_htonl(1);
		ctx->user_port = bpf_htons(c->dns_port);
	}
	return verdict != 0;
}

static __always_inline struct lw_stamp *lw_from_resolver(struct bpf_sock_addr *ctx,
							 const __u32 *from)
{
	struct bpf_sock *sk = ctx->sk;
	struct lw_stamp *s = sk ? bpf_sk_storage_get(&stamps, sk, 0, 0) : 0;
	struct lw_cfg *c = lw_cfg();

	if (!s || !c || !(s->flags & LW_ST_DNS))
		return 0;
	if ((__u16)ctx->user_port != bpf_htons(c->dns_port) || !lw_is_loopback(from))
		return 0;
	return s;
}

SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	__u32 from[4] = {0, 0, bpf_htonl(0xffff), ctx->user_ip4}, asked[4];
	struct lw_stamp *s = lw_from_resolver(ctx, from);

	if (s) {
		__builtin_memcpy(asked, s->dns_addr, sizeof(asked));
		ctx->user_ip4 = asked[3];
		ctx->user_port = bpf_htons(s->dns_port);
	}
	return 1;
}

SEC("cgroup/recvmsg6")
int recvmsg6(struct bpf_sock_addr *ctx)
{
	__u32 from[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	struct lw_stamp *s = lw_from_resolver(ctx, from);
	__u32 asked[4];

	if (s) {
		__builtin_memcpy(asked, s->dns_addr, sizeof(asked));
		ctx->user_ip6[0] = asked[0];
		ctx->user_ip6[1] = asked[1];
		ctx->user_ip6[2] = asked[2];
		ctx->user_ip6[3] = asked[3];
		ctx->user_port = bpf_htons(s->dns_port);
	}
	return 1;
}

char LICENSE[] __weak SEC("license") = "GPL";
