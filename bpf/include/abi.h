/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What kernel and user space share. Little endian, fixed width, explicit padding.
 * agent/kernel/abi.py mirrors it; tests/kernel/test_abi.py compares both through BTF.
 * Any change of a structure, of a map or of a meaning takes the next LW_ABI. */
#ifndef LW_ABI_H
#define LW_ABI_H

#define LW_ABI 2

#define LW_CHAIN_MAX 8	  /* processes in a flow record; more ancestors are left out */
#define LW_LEVELS_MAX 32  /* cgroup levels searched; a run deeper than this is not seen */
#define LW_PIDNS_MAX 4	  /* pid namespace levels searched for the daemon's */
#define LW_EXE_MAX 256	  /* bytes with the final 0 */
#define LW_ARGV_MAX 512	  /* bytes, arguments divided by 0 */
#define LW_RUNS_MAX 4096
#define LW_FLOWS_MAX 8192
#define LW_PROCS_MAX 16384
#define LW_META_BYTES 4096
#define LW_EVENTS_BYTES 262144
#define LW_NONCE_MASK 0xfffffu
#define LW_NONCE_TRIES 4	   /* nonces whose record is fresh are passed over */
#define LW_PENDING_MAX 1024	   /* connections of a run on their way to the proxy; power of 2 */
#define LW_DNS_STEP_NS 1000000ull  /* a run's share of the resolver: 500 questions a second, */
#define LW_DNS_BURST_NS 2000000000ull /* and 1,000 at once; each counts when asked and when it leaves */
#define LW_FRESH_NS 10000000000ull /* user space refuses records half as old */

enum lw_run_flag { LW_RUN_REVOKED = 1, LW_RUN_ADOPT = 2 };
enum lw_evidence { LW_EV_NONE = 0, LW_EV_BOTH = 1, LW_EV_TAG = 2, LW_EV_CGROUP = 3 };
enum lw_stamp_flag { LW_ST_LOOPBACK = 1, LW_ST_DNS = 2 };
enum lw_event_type {
	LW_E_EMPTIED = 1,
	LW_E_TAG_WITHOUT_CGROUP = 2,
	LW_E_CGROUP_WITHOUT_TAG = 3,
	LW_E_DENIED = 4,
};

/* Index of the counters map, and the cause in a DENIED event. */
enum lw_cause {
	LW_C_MARKED = 0,	 /* not a denial: flows given a nonce */
	LW_C_FOREIGN_SOCKET = 1, /* socket made outside the run */
	LW_C_RUN_SOCKET_OUTSIDE = 2,
	LW_C_REVOKED = 3,
	LW_C_SOCKET_TYPE = 4, /* neither TCP nor UDP */
	LW_C_OUR_PORT = 5,    /* proxy or resolver port addressed directly */
	LW_C_UDP = 6,
	LW_C_EGRESS = 7,
	LW_C_INGRESS = 8,
	LW_C_SOCKOPT = 9,
	LW_C_NO_ROOM = 10, /* stamp, mark or flow record could not be made */
	LW_C_RUN_UNKNOWN = 11,
	LW_C_EVENT_LOST = 12, /* not a denial: an event did not fit its ring */
	LW_C_FAMILY = 13,
	LW_C_CROWDED = 14, /* too many of the run's connections or questions wait */
	LW_C_FORGED = 15,  /* an outsider's packet under a mark of ours */
	LW_C_COUNT = 16,
};

struct lw_cfg {
	__u32 abi;
	__u32 mark_base;
	__u16 proxy_port; /* host order, as all ports here */
	__u16 dns_port;
	__u32 pidns_inum; /* pid namespace of the daemon */
	__u64 netns_cookie; /* of the daemon: its ports are guarded here; 0 means everywhere */
};

struct lw_run {
	__u64 cgid;
	__u32 flags;
	__u32 pad;
	__u8 run_id[16];
};

struct lw_pending {
	__u64 dns_ns; /* when the run's share of the resolver is unused again; boot time */
	__u32 next;
	__u32 pad;
	__u32 marks[LW_PENDING_MAX]; /* of its last connections */
};

struct lw_meta {
	__u32 size;
	__u8 body[LW_META_BYTES - 4];
};

struct lw_tag {
	__u64 tag;
};

struct lw_proc_key {
	__u32 tgid;
	__u32 pad;
	__u64 start_ns;
};

struct lw_proc {
	__u64 tag;
	struct lw_proc_key parent;
	__u64 exec_ns;
	__u64 exit_ns;
	__u64 exe_ino;
	__u32 uid;
	__u32 argv_size;  /* bytes in argv */
	__u32 argv_total; /* bytes the process had */
	__u32 pad;
	char comm[16];
	char exe[LW_EXE_MAX];
	char argv[LW_ARGV_MAX];
};

struct lw_link {
	__u32 tgid;
	__u32 uid;
	__u64 start_ns;
	char comm[16];
};

struct lw_flow {
	__u64 cookie;
	__u64 netns_cookie;
	__u64 tag;
	__u64 cgid;
	__u64 connect_ns; /* boot time */
	__u8 daddr[16];	  /* IPv4 as ::ffff:a.b.c.d */
	__u16 dport;
	__u8 family;
	__u8 evidence;
	__u32 mark;
	__u32 nchain;
	__u32 pad;
	struct lw_link chain[LW_CHAIN_MAX];
};

struct lw_stamp {
	__u64 tag;
	__u32 flags;
	__u16 dns_port;
	__u16 pad;
	__u8 dns_addr[16];
	struct lw_flow flow;
};

struct lw_event {
	__u32 type;
	__u32 cause;
	__u64 at_ns;
	__u64 tag;
	__u64 cgid;
	__u32 tgid;
	__u32 pad;
};

#endif
