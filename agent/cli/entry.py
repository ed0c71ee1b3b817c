"""What the installed commands begin with: an interrupt ends them quietly from their first moment.

Our modules, and those that they need, are read for some tenths of a second, before anything is
done that an interrupt would have to undo. Until a command begins, SIGINT has its plain meaning;
`streams.guarded` gives it Python's, where KeyboardInterrupt is awaited. A caller that ignores
interrupts (nohup, a shell's background job) is let be.
"""

import signal


def loopwarden() -> int:
    """Run `loopwarden`; return the exit status."""
    _plainly()
    from agent.cli.loopwarden import main  # noqa: PLC0415 - see above

    return main()


def collector() -> int:
    """Run `loopwarden-collector`; return the exit status."""
    _plainly()
    from agent.cli.collector import main  # noqa: PLC0415 - see above

    return main()


def _plainly() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
