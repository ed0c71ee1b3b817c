"""Clear text from the loop, clear text to the API: the thinnest path through the real worker."""

from pathlib import Path

from agent.model.audit import (
    OperationDenied,
    OperationFinished,
    OperationIntended,
    SessionClosed,
    SessionOpened,
    SessionRefused,
)
from agent.model.grant import UpstreamTls
from agent.model.reason import Reason
from tests.servers.certificates import Authority
from tests.servers.netns import Namespace
from tests.servers.nginx import Api
from tests.unit.proxy.harness import UNATTRIBUTED_MARK, World, harness, target

GET = b"GET /v1/orders HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n\r\n"


def read_all(sock) -> bytes:  # type: ignore[no-untyped-def]
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def test_a_request_is_answered_with_the_injected_token(
    authority: Authority, near: Namespace, api: Api, tmp_path: Path
) -> None:
    """A loop's request without a secret is answered by the API, and recorded before and after."""
    one = target(
        tls=UpstreamTls.NONE, allow_cleartext=True, dial_port=api.plain_port, port=80
    )
    with harness(World(authority, [one]), near, tmp_path) as worker:
        with worker.connect(port=80) as sock:
            sock.sendall(GET)
            answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert b'"path":"/v1/orders"' in answer
        worker.wait_for(SessionClosed)
        kinds = [type(event) for event in worker.events]
        assert kinds == [SessionOpened, OperationIntended, OperationFinished, SessionClosed]


def test_a_connection_of_nobody_is_reset(
    authority: Authority, near: Namespace, tmp_path: Path
) -> None:
    """Unattributed is a result: reset before a byte, recorded with why."""
    with harness(World(authority, [target()]), near, tmp_path) as worker:
        with worker.connect(mark=UNATTRIBUTED_MARK) as sock:
            try:
                data = sock.recv(1)
            except ConnectionResetError:
                data = b"reset"
        assert data == b"reset"
        assert worker.wait_for(SessionRefused)[0].reason is Reason.UNATTRIBUTED
