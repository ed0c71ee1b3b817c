/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The gate: the socket's stamp must be the current task's run, and that run must be live. */
#ifndef LW_GATE_H
#define LW_GATE_H

#include "identity.h"
#include <bpf/bpf_endian.h>
#include <linux/in.h>

enum lw_gate { LW_GATE_DENY = 0, LW_GATE_PASS = 1, LW_GATE_BYSTANDER = 2 };

static __always_inline int lw_refuse(struct bpf_sock_addr *ctx, __u32 cause, __u64 tag)
{
	return lw_deny(cause, tag);
}

#define LW_EAGAIN 11
#define LW_ECONNREFUSED 111

/* Deny with an error that tells what to do: QUIC takes ECONNREFUSED for "use TCP". 5.18 and later. */
static __always_inline int lw_refuse_soft(int error, __u32 cause, __u64 tag)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_set_retval))
		bpf_set_retval(-error);
	return lw_deny(cause, tag);
}

static __always_inline int lw_gate(struct bpf_sock_addr *ctx, struct lw_who *w,
				   struct lw_stamp **stamp)
{
	struct bpf_sock *sk = ctx->sk;

	lw_who(w);
	*stamp = sk ? bpf_sk_storage_get(&stamps, sk, 0, 0) : 0;
	if (w->evidence == LW_EV_NONE) {
		if (!*stamp)
			return LW_GATE_BYSTANDER;
		return lw_deny(LW_C_RUN_SOCKET_OUTSIDE, (*stamp)->tag);
	}
	if (!w->run)
		return lw_deny(LW_C_RUN_UNKNOWN, w->tag);
	if (w->run->flags & LW_RUN_REVOKED)
		return lw_deny(LW_C_REVOKED, w->tag);
	if (!*stamp || (*stamp)->tag != w->tag)
		return lw_deny(LW_C_FOREIGN_SOCKET, w->tag);
	return LW_GATE_PASS;
}

/* Addresses are four words in network order; IPv4 is ::ffff:a.b.c.d. */
static __always_inline int lw_is_mapped(const __u32 *a)
{
	return a[0] == 0 && a[1] == 0 && a[2] == bpf_htonl(0xffff);
}

static __always_inline int lw_is_loopback(const __u32 *a)
{
	if (lw_is_mapped(a))
		return (a[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) || a[3] == 0;
	return a[0] == 0 && a[1] == 0 && a[2] == 0 && (a[3] == bpf_htonl(1) || a[3] == 0);
}

static __always_inline int lw_is_our_port(const struct lw_cfg *c, __u16 port)
{
	return port == c->proxy_port || port == c->dns_port;
}

static __always_inline int lw_is_our_netns(struct bpf_sock_addr *ctx, const struct lw_cfg *c)
{
	return !c->netns_cookie || bpf_get_netns_cookie(ctx) == c->netns_cookie;
}

/* Outsiders may not talk to the proxy or resolver; no part of the daemon does either. */
static __always_inline int lw_bystander(struct bpf_sock_addr *ctx, struct lw_cfg *c, const __u32 *a,
					__u16 port)
{
	if (!lw_is_our_port(c, port) || !lw_is_loopback(a) || !lw_is_our_netns(ctx, c))
		return 1;
	return lw_deny(LW_C_OUR_PORT, 0);
}

#endif
