/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Concern: options that would step around the redirect or forge a nonce. */
#include "include/identity.h"

#define SOL_IP 0
#define SOL_SOCKET 1
#define SOL_IPV6 41
#define SO_BINDTODEVICE 25
#define SO_MARK 36
#define SO_BINDTOIFINDEX 62
#define IP_FREEBIND 15
#define IP_TRANSPARENT 19
#define IPV6_TRANSPARENT 75
#define IPV6_FREEBIND 78
#define COPIED_MAX 4096 /* the kernel copies no more; longer values pass only with optlen 0 */

static __always_inline int lw_is_refused(int level, int name)
{
	if (level == SOL_SOCKET)
		return name == SO_MARK || name == SO_BINDTODEVICE || name == SO_BINDTOIFINDEX;
	if (level == SOL_IP)
		return name == IP_FREEBIND || name == IP_TRANSPARENT;
	if (level == SOL_IPV6)
		return name == IPV6_FREEBIND || name == IPV6_TRANSPARENT;
	return 0;
}

SEC("cgroup/setsockopt")
int setsockopt(struct bpf_sockopt *ctx)
{
	struct lw_stamp *stamp;
	struct bpf_sock *sk = ctx->sk;

	if (lw_is_refused(ctx->level, ctx->optname)) {
		stamp = sk ? bpf_sk_storage_get(&stamps, sk, 0, 0) : 0;
		if (stamp)
			return lw_deny(LW_C_SOCKOPT, stamp->tag);
	}
	if (ctx->optlen > COPIED_MAX)
		ctx->optlen = 0;
	return 1;
}

char LICENSE[] __weak SEC("license") = "GPL";
