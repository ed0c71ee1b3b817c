"""When something is done to a lease: pure arithmetic on milliseconds."""

RENEW_AT, RENEW_SPREAD = 2 / 3, 1 / 10  # of what remains; spread: a tenth of it, around two thirds
RENEW_LEFT_MS = 2_000  # with less than this left, it is replaced and not renewed again
MARGIN_MS, MARGIN_SHARE = 1_000, 20  # cut before the server's end: a second, or a twentieth of it
GROWTH_MS = 1_000  # a renewal that gives no more than this gives nothing: it is at its longest
RETRY_FIRST_MS, RETRY_MOST_MS = 1_000, 300_000
RETRY_SPREAD = 1 / 5
ATTEMPTS_MAX = 12  # failed revocations after which a lease is quarantined: about 20 minutes
QUARANTINE_RETRY_MS = 86_400_000  # a quarantined one is tried again each day
REFUSE_FIRST_MS, REFUSE_MOST_MS = 1_000, 30_000  # from the second failed issue in a row
TIME_MAX_MS = 1 << 48  # Unix milliseconds; a later end is nonsense


def renew_at_ms(now_ms: int, end_ms: int, chance: float) -> int:
    """Return when to renew: after two thirds of what remains, give or take a twentieth of it."""
    left_ms = max(0, end_ms - now_ms)
    return now_ms + int(left_ms * (RENEW_AT + RENEW_SPREAD * (chance - 0.5)))


def cut_at_ms(now_ms: int, end_ms: int) -> int:
    """Return when sessions are cut: shortly before the server does it in its own way."""
    left_ms = max(0, end_ms - now_ms)
    return end_ms - min(MARGIN_MS, left_ms // MARGIN_SHARE)


def retry_delay_ms(failures: int, chance: float) -> int:
    """Return how long to wait after so many failed revocations (1 or more)."""
    nominal = min(RETRY_FIRST_MS << min(failures - 1, 20), RETRY_MOST_MS)
    return int(nominal * (1 + RETRY_SPREAD * (2 * chance - 1)))


def refuse_for_ms(failures: int) -> int:
    """Return how long the same answer is given after so many failed issues in a row."""
    if failures < 2:
        return 0
    return min(REFUSE_FIRST_MS << min(failures - 2, 20), REFUSE_MOST_MS)


def remaining_ms(wanted_until_ms: int, now_ms: int, longest_ms: int) -> int:
    """Return how long a moment that was written down is away; a clock that was set gives no more.

    longest_ms is the most that can be right.
    """
    return max(0, min(wanted_until_ms - now_ms, longest_ms))
