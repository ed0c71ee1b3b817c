/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Concern: what happens to runs' cgroups: the last process gone, processes moved in or out. */
#include "include/identity.h"
#include <bpf/bpf_tracing.h>

static __always_inline void lw_tell(__u32 type, __u64 tag, __u64 cgid, struct task_struct *task)
{
	struct lw_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);

	if (!e) {
		lw_count(LW_C_EVENT_LOST);
		return;
	}
	lw_event_fill(e, type, 0, tag);
	e->cgid = cgid;
	e->tgid = task ? lw_tgid(task->group_leader) : 0;
	bpf_ringbuf_submit(e, 0);
}

/* The tag of the registered cgroup that is or holds this one. */
static __always_inline __u64 lw_tag_of_cgroup(struct cgroup *cgroup)
{
	for (int level = 0; level < LW_LEVELS_MAX; level++) {
		__u64 id, *tag;

		if (!cgroup)
			break;
		id = BPF_CORE_READ(cgroup, kn, id);
		tag = bpf_map_lookup_elem(&loops, &id);
		if (tag)
			return *tag;
		cgroup = (void *)BPF_CORE_READ(cgroup, self.parent);
	}
	return 0;
}

SEC("tp_btf/cgroup_notify_populated")
int BPF_PROG(cgroup_populated, struct cgroup *cgroup, const char *path, int populated)
{
	__u64 id, *tag;

	if (populated)
		return 0;
	id = BPF_CORE_READ(cgroup, kn, id);
	tag = bpf_map_lookup_elem(&loops, &id);
	if (tag)
		lw_tell(LW_E_EMPTIED, *tag, id, 0);
	return 0;
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(cgroup_attach, struct cgroup *to, const char *path, struct task_struct *task,
	     _Bool threadgroup)
{
	__u64 there = lw_tag_of_cgroup(to), tag = lw_tag_get(task);
	struct lw_run *run;

	if (there == tag)
		return 0;
	if (tag) {
		lw_tell(LW_E_TAG_WITHOUT_CGROUP, tag, BPF_CORE_READ(to, kn, id), task);
		return 0;
	}
	run = bpf_map_lookup_elem(&runs, &there);
	if (run && (run->flags & LW_RUN_ADOPT)) {
		if (lw_tag_set(task, there))
			lw_count(LW_C_NO_ROOM);
		return 0;
	}
	lw_tell(LW_E_CGROUP_WITHOUT_TAG, there, BPF_CORE_READ(to, kn, id), task);
	return 0;
}

char LICENSE[] __weak SEC("license") = "GPL";
