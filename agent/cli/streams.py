"""What every command of ours does with its standard streams, and with what goes wrong on them.

Output whose reader left (`| head`) ends a command quietly, as SIGPIPE would; output that can't be
written (a full disk) is an error with one line, never a traceback and never an exit status of 0.
"""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable

EXIT_WRONG_USE = 2
EXIT_INTERRUPTED = 128 + signal.SIGINT
EXIT_READER_LEFT = 128 + signal.SIGPIPE


def guarded(name: str, act: Callable[[], int], trouble: int) -> int:
    """Return what act returns, once all that it printed is written; else an exit status.

    trouble: the status when a file, the output among them, can't be read or written.
    """
    open_closed()
    if isinstance(sys.stdout, io.TextIOWrapper):  # what the terminal's encoding lacks is escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see agent/cli/entry.py
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return act()
        finally:
            sys.stdout.flush()  # also of --help, which leaves by SystemExit
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        code = EXIT_READER_LEFT
    except UnicodeEncodeError:  # of a word: what is printed is escaped
        complain(name, "a word of the command line is not UTF-8")
        code = EXIT_WRONG_USE
    except OSError as error:
        complain(name, said(error))
        code = trouble
    _let_go_of_output()
    return code


def complain(name: str, text: str) -> None:
    """Write one error to stderr, if anybody can be told."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{name}: {text}\n")
        sys.stderr.flush()


def said(error: OSError) -> str:
    """Return an error of the system as people write it: the file, then what is wrong with it."""
    text = error.strerror or str(error) or type(error).__name__
    named = error.filename
    return text if named is None else f"{os.fsdecode(named)}: {text}"


def open_closed() -> None:
    """Put /dev/null in the place of a standard stream that is closed, until exec.

    Else the next file or socket would get its number, and what is printed would go there.
    """
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)  # the lowest free number: this one
    # open to the end (SIM115): they are the process's own
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _let_go_of_output() -> None:
    """What is still buffered goes nowhere: Python would try it again as it ends, and complain."""
    with contextlib.suppress(OSError, ValueError):  # no stream of the system: a test's
        fd = sys.stdout.fileno()
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(null, fd)
        os.close(null)
