"""Runs as a loop's command: does what each line says in a child of its own, and says what came.

A line is a JSON string of Python; the answer is a JSON string of what it printed.
"""

import json
import os
import sys

PRELUDE = """
import ctypes, errno, json, os, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(call):
    '''Print what came of it: an errno's name, or what it returned.'''
    try:
        print(call())
    except OSError as error:
        print(errno.errorcode.get(error.errno, type(error).__name__))
def tcp(family, address, port=8080, before=lambda sock: None):
    '''Dial, send and read: what somebody answers, or how it failed.'''
    with socket.socket(family) as sock:
        sock.settimeout(60)
        before(sock)
        sock.connect((address, port))
        sock.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
        return sock.recv(64)[:12]
def system(number, *arguments):
    result = libc.syscall(number, *[a if isinstance(a, bytes) else ctypes.c_long(a)
                                    for a in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), '')
    return result
"""


def main() -> None:
    """Serve until stdin ends."""
    for line in sys.stdin:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", PRELUDE + json.loads(line)])
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        sys.stdout.write(json.dumps(said.decode(errors="replace").strip()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
