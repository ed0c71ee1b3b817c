/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Whose listener would answer at this address? For runs that talk to themselves over loopback. */
#ifndef LW_LISTENER_H
#define LW_LISTENER_H

#include "maps.h"

/* Does a TCP listener of the run answer this tuple, in the namespace of the program's context? */
static __always_inline int lw_is_own_listener(void *ctx, struct bpf_sock_tuple *tuple, __u32 size,
					      __u64 tag)
{
	struct bpf_sock *sk = bpf_sk_lookup_tcp(ctx, tuple, size, BPF_F_CURRENT_NETNS, 0);
	struct lw_stamp *theirs;
	int same;

	if (!sk) { /* one that is closing may have that very pair; the kernel takes the listener */
		if (size == sizeof(tuple->ipv4))
			tuple->ipv4.sport = 0;
		else
			tuple->ipv6.sport = 0;
		sk = bpf_sk_lookup_tcp(ctx, tuple, size, BPF_F_CURRENT_NETNS, 0);
	}
	if (!sk)
		return 0;
	theirs = bpf_sk_storage_get(&stamps, sk, 0, 0);
	same = theirs && theirs->tag == tag;
	bpf_sk_release(sk);
	return same;
}

#endif
