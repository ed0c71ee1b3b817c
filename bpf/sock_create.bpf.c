/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Concern: stamp sockets at birth. AF_INET and AF_INET6 only: the hook sees no other family. */
#include "include/identity.h"
#include <linux/in.h>

SEC("cgroup/sock_create")
int sock_create(struct bpf_sock *ctx)
{
	struct lw_who w;
	struct lw_stamp *stamp;

	lw_who(&w);
	if (w.evidence == LW_EV_NONE)
		return 1;
	if (!w.run)
		return lw_deny(LW_C_RUN_UNKNOWN, w.tag);
	if (w.run->flags & LW_RUN_REVOKED)
		return lw_deny(LW_C_REVOKED, w.tag);
	/* RAW, ICMP, UDP-Lite, SCTP, DCCP, MPTCP and whatever comes: not TCP, not UDP. */
	if (!(ctx->type == SOCK_STREAM && ctx->protocol == IPPROTO_TCP) &&
	    !(ctx->type == SOCK_DGRAM && ctx->protocol == IPPROTO_UDP))
		return lw_deny(LW_C_SOCKET_TYPE, w.tag);
	stamp = bpf_sk_storage_get(&stamps, ctx, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!stamp)
		return lw_deny(LW_C_NO_ROOM, w.tag);
	stamp->tag = w.tag;
	return 1;
}

char LICENSE[] __weak SEC("license") = "GPL";
