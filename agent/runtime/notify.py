"""sd_notify(3): readiness, status and watchdog towards systemd; silent when there is none."""

import os
import socket


def notify(**fields: str) -> None:
    """Send fields such as READY="1", STATUS="…", WATCHDOG="1" to the service manager."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    message = "\n".join(f"{name}={value}" for name, value in fields.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(message.encode(), address)
        except OSError:
            return  # the manager is gone or refuses: nothing of ours depends on it


def watchdog_interval_s() -> float | None:
    """Return how often WATCHDOG=1 is due (half the limit), or None."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    limit = os.environ.get("WATCHDOG_USEC", "")
    return int(limit) / 2_000_000 if limit.isdecimal() and int(limit) > 0 else None
