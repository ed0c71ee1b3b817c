/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What one run may take of what all runs share: records of flows, and the resolver's time. */
#ifndef LW_SHARE_H
#define LW_SHARE_H

#include "maps.h"

/* Where to note the run's next connection; 0 when the one LW_PENDING_MAX before still waits. */
static __always_inline __u32 *lw_pending_slot(struct lw_pending *p, __u64 tag, __u64 now_ns)
{
	__u32 *slot = &p->marks[__sync_fetch_and_add(&p->next, 1) & (LW_PENDING_MAX - 1)];
	__u32 mark = *slot;
	struct lw_flow *held = mark ? bpf_map_lookup_elem(&mflows, &mark) : 0;

	if (held && held->tag == tag && now_ns - held->connect_ns <= LW_FRESH_NS)
		return 0;
	return slot;
}

/* Is there room for one more question of the run? Two at once may count as one. */
static __always_inline int lw_may_ask(__u64 tag)
{
	struct lw_pending *p = bpf_map_lookup_elem(&pending, &tag);
	__u64 now_ns = bpf_ktime_get_boot_ns(), free_ns;

	if (!p)
		return 0;
	free_ns = p->dns_ns > now_ns ? p->dns_ns : now_ns;
	if (free_ns - now_ns > LW_DNS_BURST_NS)
		return 0;
	p->dns_ns = free_ns + LW_DNS_STEP_NS;
	return 1;
}

#endif
