"""Keeps the broker's memory out of swap."""

import ctypes
import logging
import os
import resource

MCL_CURRENT, MCL_FUTURE, MCL_ONFAULT = 1, 2, 4  # mlockall(2)

logger = logging.getLogger(__name__)


def lock_memory() -> None:
    """Lock what is used, now and later; as root, before power is given up. A refusal is logged."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, limit)
    except (OSError, ValueError):
        logger.warning("memory is not locked: RLIMIT_MEMLOCK can't be raised")
        return
    if libc.mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0:
        logger.warning("memory is not locked: %s", os.strerror(ctypes.get_errno()))
