/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Concern: connect(). Every TCP flow of a run gets a nonce mark and a record under it; name
 * service goes to our resolver; a run may talk to its own loopback listeners; all else is no. */
#include "include/gate.h"
#include "include/listener.h"
#include "include/share.h"

#define SOL_SOCKET 1
#define SO_MARK 36

static __always_inline int lw_set_mark(struct bpf_sock_addr *ctx, __u32 mark)
{
	return bpf_setsockopt(ctx, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
}

/* These two have loops. As functions of their own (not static) the verifier looks at each once, and
 * not for every way that leads here: the start of the daemon is half a second of it shorter. */
__noinline int lw_fill_chain(struct lw_flow *f)
{
	/* Typed pointers: plain loads, which the verifier turns into fault-tolerant ones. Half the
	 * cost of a helper call a field. */
	struct task_struct *task = bpf_get_current_task_btf()->group_leader;

	if (!f)
		return 0;
	f->nchain = 0;
	for (int i = 0; i < LW_CHAIN_MAX && task; i++) {
		struct lw_link *link = &f->chain[i];
		const struct cred *cred = task->cred;
		struct task_struct *parent = task->real_parent;

		link->tgid = lw_tgid(task);
		if (!link->tgid || !cred)
			break;
		link->uid = cred->uid.val;
		link->start_ns = task->start_boottime;
		bpf_probe_read_kernel(link->comm, sizeof(link->comm), &task->comm);
		f->nchain = i + 1;
		task = parent ? parent->group_leader : 0;
	}
	return 0;
}

/* The next mark without a fresh record: its connection may still wait for the proxy. 0 is none. */
__noinline __u32 lw_next_mark(__u32 mark_base, __u64 now_ns)
{
	__u32 zero = 0;
	__u64 *next = bpf_map_lookup_elem(&nonces, &zero);

	if (!next || !mark_base)
		return 0;
	for (int i = 0; i < LW_NONCE_TRIES; i++) {
		__u32 mark = mark_base | (__sync_fetch_and_add(next, 1) & LW_NONCE_MASK);
		struct lw_flow *held = bpf_map_lookup_elem(&mflows, &mark);

		if (!held || now_ns - held->connect_ns > LW_FRESH_NS)
			return mark;
	}
	return 0;
}

/* The record is built in the stamp, which the locked socket owns, and copied to the map whole. */
static __always_inline int lw_mark_flow(struct bpf_sock_addr *ctx, struct lw_cfg *c,
					struct lw_who *w, struct lw_stamp *s, const __u32 *a,
					__u16 port)
{
	struct lw_pending *p = bpf_map_lookup_elem(&pending, &w->tag);
	struct lw_flow *f = &s->flow;
	__u32 *slot;

	f->connect_ns = bpf_ktime_get_boot_ns();
	f->mark = 0; /* no SYN goes under what this one had before */
	slot = p ? lw_pending_slot(p, w->tag, f->connect_ns) : 0;
	if (!slot)
		return lw_refuse_soft(LW_EAGAIN, LW_C_CROWDED, w->tag);
	f->mark = lw_next_mark(c->mark_base, f->connect_ns);
	if (!f->mark)
		return lw_deny(LW_C_NO_ROOM, w->tag);
	f->cookie = bpf_get_socket_cookie(ctx);
	f->netns_cookie = bpf_get_netns_cookie(ctx);
	f->tag = w->tag;
	f->cgid = w->run ? w->run->cgid : 0;
	__builtin_memcpy(f->daddr, a, sizeof(f->daddr));
	f->dport = port;
	f->family = ctx->user_family;
	f->evidence = w->evidence;
	lw_fill_chain(f);
	if (bpf_map_update_elem(&mflows, &f->mark, f, BPF_ANY) || lw_set_mark(ctx, f->mark))
		return lw_deny(LW_C_NO_ROOM, w->tag);
	*slot = f->mark;
	lw_count(LW_C_MARKED);
	return 1;
}

/* Does a listener of the same run answer at this loopback address? The egress guard asks again
 * for the packet that goes there: the listener can be another's by then. */
static __always_inline int lw_own_listener(struct bpf_sock_addr *ctx, const __u32 *a, __u16 port,
					   __u64 tag)
{
	struct bpf_sock_tuple t = {};

	if (lw_is_mapped(a)) {
		t.ipv4.saddr = bpf_htonl(0x7f000001);
		t.ipv4.daddr = a[3] ? a[3] : bpf_htonl(0x7f000001);
		t.ipv4.dport = bpf_htons(port);
		return lw_is_own_listener(ctx, &t, sizeof(t.ipv4), tag);
	}
	t.ipv6.saddr[3] = bpf_htonl(1);
	t.ipv6.daddr[3] = bpf_htonl(1);
	t.ipv6.dport = bpf_htons(port);
	return lw_is_own_listener(ctx, &t, sizeof(t.ipv6), tag);
}

/* Returns 0 no, 1 as it is, 2 to the resolver. */
static __always_inline int lw_connect(struct bpf_sock_addr *ctx, const __u32 *a)
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
	s->flags = 0;
	if (port == 53) {
		if (!lw_may_ask(w.tag))
			return lw_refuse_soft(LW_EAGAIN, LW_C_CROWDED, w.tag);
		s->flags = LW_ST_DNS;
		__builtin_memcpy(s->dns_addr, a, sizeof(s->dns_addr));
		s->dns_port = port;
		return lw_set_mark(ctx, 0) ? lw_deny(LW_C_NO_ROOM, w.tag) : 2;
	}
	if (ctx->protocol != IPPROTO_TCP)
		return lw_refuse_soft(LW_ECONNREFUSED, LW_C_UDP, w.tag);
	if (!lw_is_loopback(a))
		return lw_mark_flow(ctx, c, &w, s, a, port);
	if (lw_is_our_port(c, port))
		return lw_deny(LW_C_OUR_PORT, w.tag);
	if (!lw_own_listener(ctx, a, port, w.tag))
		return lw_mark_flow(ctx, c, &w, s, a, port);
	s->flags = LW_ST_LOOPBACK;
	return lw_set_mark(ctx, 0) ? lw_deny(LW_C_NO_ROOM, w.tag) : 1;
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	__u32 a[4] = {0, 0, bpf_htonl(0xffff), ctx->user_ip4};
	int verdict = lw_connect(ctx, a);
	struct lw_cfg *c = lw_cfg();

	if (verdict == 2 && c) {
		ctx->user_ip4 = bpf_htonl(0x7f000001);
		ctx->user_port = bpf_htons(c->dns_port);
	}
	return verdict != 0;
}

SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	__u32 a[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	int verdict = lw_connect(ctx, a);
	struct lw_cfg *c = lw_cfg();

	if (verdict == 2 && c) {
		int mapped = lw_is_mapped(a);

		ctx->user_ip6[0] = 0;
		ctx->user_ip6[1] = 0;
		ctx->user_ip6[2] = mapped ? bpf_htonl(0xffff) : 0;
		ctx->user_ip6[3] = mapped ? bpf_htonl(0x7f000001) : bpf_htonl(1);
		ctx->user_port = bpf_htons(c->dns_port);
	}
	return verdict != 0;
}

char LICENSE[] __weak SEC("license") = "GPL";
