"""How the spool says no."""


class SpoolFull(Exception):
    """The bound or the disk is reached: refused, nothing was appended. Traffic must stop."""


class SpoolDead(Exception):
    """A write or a sync failed: nothing more is acknowledged; exit and recover by reading back.

    A failed fsync is never tried again: the kernel has marked the pages clean, and a second call
    would say that what is lost is safe.
    """
