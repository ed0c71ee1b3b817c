"""The root process: BPF, nftables, cgroups, and the supervisor of the other roles (layer 4)."""
