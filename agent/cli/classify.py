"""Classifies one text as the proxy does: in a process that may crash over it."""

import msgspec

from agent.model.sql import Classified, unknown
from agent.protocols import discover
from agent.proxy.classifier import CRASHED, start
from agent.runtime.expendable import REQUEST_BYTES_MAX, WAIT_SECONDS_MAX

ANSWER_TIMEOUT_S = 2 * WAIT_SECONDS_MAX  # the process is killed over a text long before
_decode = msgspec.msgpack.Decoder(Classified).decode


def classify(protocol: str, text: str) -> Classified:
    """Return what a text does; UNKNOWN when it can't be told, with the reason."""
    work = discover()[protocol].classify
    if work is None:
        return unknown(f"protocol {protocol} has no classifier")
    request = f"{protocol}\0{text}".encode()
    if len(request) > REQUEST_BYTES_MAX:
        return unknown(CRASHED)
    process = start({protocol: work})
    try:
        process.sock.settimeout(ANSWER_TIMEOUT_S)
        process.ask(request)
        answer = process.answer()
    except OSError:
        answer = None
    finally:
        process.close()
    return unknown(CRASHED) if answer is None else _decode(answer)
