/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Concern: the tag follows fork. Runs in the parent, before the child can be scheduled. */
#include "include/identity.h"
#include <bpf/bpf_tracing.h>

SEC("tp_btf/task_newtask")
int BPF_PROG(tag_newtask, struct task_struct *task, unsigned long clone_flags)
{
	__u64 tag = lw_tag_get(bpf_get_current_task_btf());

	if (!tag) {
		struct lw_run *run;

		tag = lw_cgroup_tag();
		if (!tag)
			return 0;
		run = bpf_map_lookup_elem(&runs, &tag);
		if (!run || !(run->flags & LW_RUN_ADOPT))
			return 0;
	}
#ifdef LW_NO_TASK_STORAGE
	return 0; /* procs_fork makes the child's record, with the tag */
#endif
	/* A child without tag is still governed by its cgroup, only without credential. */
	if (lw_tag_set(task, tag))
		lw_count(LW_C_NO_ROOM);
	return 0;
}

char LICENSE[] __weak SEC("license") = "GPL";
