/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Who is the current task? Two facts: the tag in its storage, the ancestor cgroup. */
#ifndef LW_IDENTITY_H
#define LW_IDENTITY_H

#include "maps.h"
#include <bpf/bpf_core_read.h>

struct lw_who {
	__u64 tag; /* of the run that governs */
	struct lw_run *run;
	__u32 evidence; /* enum lw_evidence; NONE means a bystander */
};

static __always_inline struct lw_cfg *lw_cfg(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&cfg, &zero);
}

static __always_inline void lw_count(__u32 cause)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &cause);

	if (n)
		*n += 1;
}

/* The process id as the daemon's pid namespace has it; the kernel's own when it cannot see it. */
static __always_inline __u32 lw_tgid(struct task_struct *leader)
{
	struct lw_cfg *c = lw_cfg();
	struct pid *pid = leader->thread_pid;
	__u32 level = pid ? pid->level : 0;

	if (!c || level == 0)
		return leader->tgid;
	for (__u32 i = 0; i < LW_PIDNS_MAX; i++) {
		struct upid *number;

		if (i > level)
			break;
		number = (void *)pid + bpf_core_field_offset(struct pid, numbers) +
			 i * bpf_core_type_size(struct upid);
		if (BPF_CORE_READ(number, ns, ns.inum) == c->pidns_inum)
			return BPF_CORE_READ(number, nr);
	}
	return leader->tgid;
}

static __always_inline struct lw_proc_key lw_proc_key(struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	struct lw_proc_key key = {
		.tgid = lw_tgid(leader),
		.start_ns = leader->start_boottime,
	};

	return key;
}

#ifdef LW_NO_TASK_STORAGE
static __always_inline __u64 lw_tag_get(struct task_struct *task)
{
	struct lw_proc_key key = lw_proc_key(task);
	struct lw_proc *p = bpf_map_lookup_elem(&procs, &key);

	return p ? p->tag : 0;
}

static __always_inline int lw_tag_set(struct task_struct *task, __u64 tag)
{
	struct lw_proc_key key = lw_proc_key(task);
	struct lw_proc *p = bpf_map_lookup_elem(&procs, &key);

	if (p)
		p->tag = tag;
	return p ? 0 : -1;
}
#else
static __always_inline __u64 lw_tag_get(struct task_struct *task)
{
	struct lw_tag *t = bpf_task_storage_get(&tags, task, 0, 0);

	return t ? t->tag : 0;
}

static __always_inline int lw_tag_set(struct task_struct *task, __u64 tag)
{
	struct lw_tag init = {.tag = tag};
	struct lw_tag *t = bpf_task_storage_get(&tags, task, &init, BPF_LOCAL_STORAGE_GET_F_CREATE);

	if (t)
		t->tag = tag;
	return t ? 0 : -1;
}
#endif

/* The tag of the registered cgroup that holds the current task, or 0. Nested ones cannot be. */
static __always_inline __u64 lw_cgroup_tag(void)
{
	for (int level = 1; level < LW_LEVELS_MAX; level++) { /* the root is no run */
		__u64 id = bpf_get_current_ancestor_cgroup_id(level);
		__u64 *tag;

		if (!id)
			break;
		tag = bpf_map_lookup_elem(&loops, &id);
		if (tag)
			return *tag;
	}
	return 0;
}

static __always_inline void lw_who(struct lw_who *w)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 by_tag = lw_tag_get(task), by_cgroup = lw_cgroup_tag();

	w->tag = by_tag ? by_tag : by_cgroup;
	w->run = 0;
	w->evidence = LW_EV_NONE;
	if (!w->tag)
		return;
	w->run = bpf_map_lookup_elem(&runs, &w->tag);
	if (by_tag)
		w->evidence = by_tag == by_cgroup ? LW_EV_BOTH : LW_EV_TAG;
	else if (w->run && (w->run->flags & LW_RUN_ADOPT) && !lw_tag_set(task, by_cgroup))
		w->evidence = LW_EV_BOTH;
	else
		w->evidence = LW_EV_CGROUP;
}

/* Not inlined: its prototype keeps struct lw_event in the object's BTF, for the mirror's test. */
static __noinline int lw_event_fill(struct lw_event *e, __u32 type, __u32 cause, __u64 tag)
{
	if (!e)
		return 0;
	e->type = type;
	e->cause = cause;
	e->at_ns = bpf_ktime_get_boot_ns();
	e->tag = tag;
	e->cgid = 0;
	e->tgid = 0;
	e->pad = 0;
	return 0;
}

/* Count, leave a note where the ring has room, waking nobody, and return the hook's "no". */
static __always_inline int lw_deny(__u32 cause, __u64 tag)
{
	struct lw_event *e;

	lw_count(cause);
	e = bpf_ringbuf_reserve(&denials, sizeof(*e), 0);
	if (e) {
		struct task_struct *task = bpf_get_current_task_btf();

		lw_event_fill(e, LW_E_DENIED, cause, tag);
		e->tgid = lw_tgid(task->group_leader);
		bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP); /* a run makes as many as it likes */
	}
	return 0;
}

#endif
