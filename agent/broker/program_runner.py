"""Programs of the operator, as providers ask for them: some at a time, each bounded."""

import asyncio
import socket

from agent.credentials.spec import CredentialError, Program
from agent.model.secret import Secret
from agent.runtime.programs import CLEAN_S, DONE, OUTPUT_BYTES_MAX, WITHIN_S_MAX, Programs

RUNS_MAX = 8  # at once; more wait, within their calls' own bounds


class ProgramRunner:
    """All methods run on the event loop."""

    def __init__(self, programs: Programs | None) -> None:
        """Without a keeper nothing is run, and the error says what to do."""
        self._programs = programs
        self._gate = asyncio.Semaphore(RUNS_MAX)

    async def run(self, program: Program) -> Secret:
        """Return what it printed.

        Raises:
            CredentialError: see Client.run.
        """
        if self._programs is None:
            raise CredentialError(
                "programs are not run: there is no user for them; make the user of [users] exec "
                "(`systemd-sysusers`), and restart the daemon",
                nothing_made=True,
            )
        async with self._gate:
            try:
                sock = self._programs.ask(
                    list(program.argv),
                    dict(program.environment),
                    0.0 if program.only_check else WITHIN_S_MAX,
                )
            except (OSError, ValueError) as error:
                text = f"{program.argv[0]} can't be started: {type(error).__name__}"
                raise CredentialError(text, nothing_made=True) from None
            try:
                async with asyncio.timeout(WITHIN_S_MAX + CLEAN_S + 1):
                    answer = await _read(sock)
            except (OSError, TimeoutError):
                answer = b""
            finally:
                sock.close()
        if answer[:1] == DONE:
            return Secret(answer[1:])
        text = answer[1:].decode(errors="replace") or f"{program.argv[0]}: its runner ended"
        raise CredentialError(text, transient=True)


async def _read(sock: socket.socket) -> bytes:
    event_loop = asyncio.get_running_loop()
    answer = bytearray()
    while len(answer) <= OUTPUT_BYTES_MAX + 1:
        piece = await event_loop.sock_recv(sock, OUTPUT_BYTES_MAX + 2)
        if not piece:
            break
        answer += piece
    return bytes(answer)
