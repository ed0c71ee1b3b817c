"""How the C library keeps freed memory.

By default it gives the top of the heap back to the kernel at 128 KiB and maps larger blocks one by
one (mallopt(3)): who moves data in blocks of 256 KiB then takes page faults for each of them, a
tenth of the CPU time that a large answer costs.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT_BYTES_MAX = 16 << 20  # freed memory at the heap's top that is not given back
BLOCK_BYTES_MAX = 4 << 20  # a larger block is mapped, and given back when it is freed


def keep_freed_memory() -> bool:
    """Keep a bounded amount for the next block. False: this C library has no such setting."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    settings = ((M_TRIM_THRESHOLD, KEPT_BYTES_MAX), (M_MMAP_THRESHOLD, BLOCK_BYTES_MAX))
    done = [mallopt(name, value) == 1 for name, value in settings]  # both, whatever one says
    return all(done)
