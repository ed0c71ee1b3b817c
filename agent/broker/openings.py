"""The first record of a session is the broker's: what kernel said of the flow, and which worker.

So a worker that was taken over can't invent whose a session is. It is in the spool before the
worker hears that it may serve the connection, and therefore before anything that the worker records
of it. It is written, not flushed: that costs a message there and back, not a flush of the disk.
What the worker records later is never more durable than this, since both are one chain.
"""

import dataclasses

from agent.broker.api import Parts
from agent.broker.recorder import Unrecorded
from agent.broker.sessions import Session
from agent.ipc.messages import Authorized, Failed, Message
from agent.ipc.records import pack_event
from agent.model.audit import SessionClosed, SessionOpened
from agent.model.flow import Process
from agent.model.reason import Reason

EVENT_BYTES_MAX = 48 << 10  # a larger one is recorded without the arguments of its processes


async def opened(parts: Parts, worker: str, session: Session, answer: Authorized) -> Message:
    """Record the session, then return the answer; Failed when that can't be done in time.

    The session may be cut meanwhile: the worker, who was told of the cut before it hears the
    answer, refuses the connection and closes the session then.
    """
    attribution = session.attribution
    target = None if answer.grant is None else answer.grant.target.name
    endpoint = parts.workers.get(worker)
    try:
        await parts.recorder.open(fitting(SessionOpened(attribution, answer.loop, target, worker)))
    except Unrecorded as error:
        parts.sessions.ended(worker, attribution.session_id)
        if error.kept:
            parts.recorder.note(_never_served(session))
        return Failed(Reason.RECORD_FAILED, f"the connection can't be recorded: {error}")
    if parts.workers.get(worker) is not endpoint:
        parts.recorder.note(_never_served(session))  # nobody is left to close it
        return Failed(Reason.INTERNAL, "the worker is gone")
    return answer


def fitting(event: SessionOpened) -> SessionOpened:
    """Return the event, cut to what fits a frame: long arguments of processes go."""
    if len(pack_event(event)[1]) <= EVENT_BYTES_MAX:
        return event
    attribution = event.attribution
    bare = dataclasses.replace(
        attribution,
        process=_bare(attribution.process),
        ancestors=tuple(map(_bare, attribution.ancestors)),
    )
    return dataclasses.replace(event, attribution=bare)


def _bare(process: Process) -> Process:
    return dataclasses.replace(process, argv=process.argv[:1], argv_truncated=True)


def _never_served(session: Session) -> SessionClosed:
    return SessionClosed(session.attribution.session_id, Reason.INTERNAL, 0, 0, 0, 0)
