/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* All maps. Weak: every object has the same definitions and the linker keeps one of each.
 * Each is pinned by its name; who writes what and what happens when it is full: README.md. */
#ifndef LW_MAPS_H
#define LW_MAPS_H

#include "kernel_types.h"
#include <bpf/bpf_helpers.h>

#include "abi.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lw_cfg);
} cfg __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LW_RUNS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* tag */
	__type(value, struct lw_run);
} runs __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LW_RUNS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64);   /* cgroup id */
	__type(value, __u64); /* tag */
} loops __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LW_RUNS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* tag */
	__type(value, struct lw_meta);
} run_meta __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LW_RUNS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u64); /* tag */
	__type(value, struct lw_pending);
} pending __weak SEC(".maps");

#ifndef LW_NO_TASK_STORAGE
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct lw_tag);
} tags __weak SEC(".maps");
#endif

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC | BPF_F_CLONE);
	__type(key, int);
	__type(value, struct lw_stamp);
} stamps __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LW_FLOWS_MAX);
	__type(key, __u32); /* mark */
	__type(value, struct lw_flow);
} mflows __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} nonces __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, LW_PROCS_MAX);
	__type(key, struct lw_proc_key);
	__type(value, struct lw_proc);
} procs __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct lw_proc);
} scratch __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, LW_EVENTS_BYTES);
} events __weak SEC(".maps");

/* A ring of its own: a run that floods denials must not crowd out "the run is over". */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, LW_EVENTS_BYTES);
} denials __weak SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LW_C_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} counters __weak SEC(".maps");

#endif
