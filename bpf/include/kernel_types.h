/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* The kernel's own structures, only the fields we read. Offsets are relocated at load (CO-RE),
 * so order and neighbours do not matter here; names and types do. Kernels 5.15 and later. */
#ifndef LW_KERNEL_TYPES_H
#define LW_KERNEL_TYPES_H

#include <linux/bpf.h>
#include <linux/types.h>

#ifndef AF_INET
#define AF_INET 2
#define AF_INET6 10
#endif
#define SOCK_STREAM 1
#define SOCK_DGRAM 2

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	__u64 id;
};

struct cgroup_subsys_state {
	struct cgroup_subsys_state *parent;
};

struct cgroup {
	struct cgroup_subsys_state self; /* first member in every kernel: css of itself */
	struct kernfs_node *kn;
};

typedef struct {
	__u32 val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct ns_common {
	__u32 inum;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	__u32 level;
	struct upid numbers[1];
};

struct mm_struct {
	unsigned long arg_start;
	unsigned long arg_end;
};

struct inode {
	unsigned long i_ino;
};

struct file {
	struct inode *f_inode;
};

struct linux_binprm {
	struct file *file;
	const char *interp; /* the file really executed: the interpreter of a script */
};

struct task_struct {
	int pid;
	int tgid;
	__u64 start_boottime;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	struct mm_struct *mm;
	const struct cred *cred;
	char comm[16];
};

#pragma clang attribute pop

#endif
