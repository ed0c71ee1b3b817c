/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Concern: the proxy's and resolver's ports are root's, also while no daemon holds them: who
 * listened there would be handed the flows of every run. */
#include "include/gate.h"

static __always_inline int lw_bind(struct bpf_sock_addr *ctx)
{
	struct lw_cfg *c = lw_cfg();
	struct lw_who w;

	if (!c || !lw_is_our_port(c, bpf_ntohs((__u16)ctx->user_port)) || !lw_is_our_netns(ctx, c))
		return 1;
	lw_who(&w);
	if (w.evidence == LW_EV_NONE && (__u32)bpf_get_current_uid_gid() == 0)
		return 1;
	return lw_deny(LW_C_OUR_PORT, w.tag);
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	return lw_bind(ctx);
}

SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	return lw_bind(ctx);
}

char LICENSE[] __weak SEC("license") = "GPL";
