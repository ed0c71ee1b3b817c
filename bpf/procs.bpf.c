/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Concern: who the run's processes are, kept past their exit. Only governed processes have a
 * record, so that bystanders cannot push a run's out of the LRU. */
#include "include/identity.h"
#include <bpf/bpf_tracing.h>

/* Tracepoints do not nest within one cpu: the scratch record is ours until we return. */
static __always_inline struct lw_proc *lw_scratch(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&scratch, &zero);
}

static __always_inline __u64 lw_governing_tag(struct task_struct *task)
{
	__u64 tag = lw_tag_get(task);

	return tag ? tag : lw_cgroup_tag();
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(procs_fork, struct task_struct *parent, struct task_struct *child)
{
	struct lw_proc *p = lw_scratch(), *from;
	struct lw_proc_key key, parent_key;
	__u64 tag = lw_governing_tag(parent);

	if (!tag || !p || child->pid != child->tgid)
		return 0;
	key = lw_proc_key(child);
	parent_key = lw_proc_key(parent);
	from = bpf_map_lookup_elem(&procs, &parent_key);
	if (from)
		__builtin_memcpy(p, from, sizeof(*p));
	else
		__builtin_memset(p, 0, sizeof(*p));
	p->tag = tag;
	p->parent = parent_key;
	p->exit_ns = 0;
	p->uid = BPF_CORE_READ(child, cred, uid.val);
	bpf_probe_read_kernel_str(p->comm, sizeof(p->comm), &child->comm);
	bpf_map_update_elem(&procs, &key, p, BPF_ANY);
	return 0;
}

static __always_inline void lw_read_argv(struct lw_proc *p, struct task_struct *task)
{
	unsigned long start = BPF_CORE_READ(task, mm, arg_start);
	unsigned long end = BPF_CORE_READ(task, mm, arg_end);
	__u32 size;

	p->argv_size = 0;
	p->argv_total = 0;
	if (!start || end <= start)
		return;
	p->argv_total = end - start;
	size = p->argv_total < LW_ARGV_MAX ? p->argv_total : LW_ARGV_MAX;
	if (size > LW_ARGV_MAX)
		return;
	if (!bpf_probe_read_user(p->argv, size, (void *)start))
		p->argv_size = size;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(procs_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct lw_proc *p = lw_scratch(), *before;
	struct lw_proc_key key;
	__u64 tag = lw_governing_tag(task);

	if (!tag || !p)
		return 0;
	key = lw_proc_key(task);
	before = bpf_map_lookup_elem(&procs, &key);
	__builtin_memset(p, 0, sizeof(*p));
	if (before)
		p->parent = before->parent;
	else
		p->parent = lw_proc_key(task->real_parent);
	p->tag = tag;
	p->exec_ns = bpf_ktime_get_boot_ns();
	p->uid = BPF_CORE_READ(task, cred, uid.val);
	p->exe_ino = BPF_CORE_READ(bprm, file, f_inode, i_ino);
	bpf_probe_read_kernel_str(p->comm, sizeof(p->comm), &task->comm);
	bpf_probe_read_kernel_str(p->exe, sizeof(p->exe), BPF_CORE_READ(bprm, interp));
	lw_read_argv(p, task);
	bpf_map_update_elem(&procs, &key, p, BPF_ANY);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(procs_exit, struct task_struct *task)
{
	struct lw_proc_key key;
	struct lw_proc *p;

	if (task->pid != task->tgid || !lw_tag_get(task))
		return 0;
	key = lw_proc_key(task);
	p = bpf_map_lookup_elem(&procs, &key);
	if (p)
		p->exit_ns = bpf_ktime_get_boot_ns();
	return 0;
}

char LICENSE[] __weak SEC("license") = "GPL";
