"""Numbers of the HTTP/1.1 relay. Each has a name, a behaviour and a test at it and one past it."""

HEAD_BYTES_MAX = 32 * 1024  # request or response head with its final CRLF CRLF → 431 / 502
REQUEST_LINE_BYTES_MAX = 8 * 1024  # without CRLF → 414
FIELD_LINE_BYTES_MAX = 16 * 1024  # one field line without CRLF → 431 / 502
FIELD_NAME_BYTES_MAX = 256  # → 400 / 502
FIELDS_MAX = 100  # field lines of a head → 431 / 502
METHOD_BYTES_MAX = 32  # → 400
BODY_BYTES_MAX = 2**53 - 1  # content-length or one chunk; what every peer holds exactly → 400
CHUNK_LINE_BYTES_MAX = 1024  # size and extensions, without CRLF → 400 / 502
TRAILER_BYTES_MAX = 8 * 1024  # trailer section → 400 / 502
INTERIM_MAX = 16  # 1xx answers before the final one → 502
HELD_BYTES_MAX = 64 * 1024  # downstream bytes held while they have to wait → Pause
HELD_BYTES_HARD = 1024 * 1024  # more in spite of Pause: the driver is broken → end
SIGNED_BODY_BYTES_MAX = 16 * 1024 * 1024  # held where a signature needs the whole body → 413
RUN_HELD_BYTES_MAX = 32 * 1024 * 1024  # of bodies, by a run at a target, in a worker → 503
PARAMETERS_MAX = 1024  # of a query that is signed → 414
PIECES_MAX = 1024  # of a body that waits; one more → they are joined
DRAIN_BYTES_MAX = 256 * 1024  # request body read and thrown away after a refusal → close
CACHED_HEAD_BYTES_MAX = 2 * 1024  # longer heads are parsed each time
CACHED_HEADS = 512  # recurring heads kept parsed, a process
ATTRIBUTE_CHARS_MAX = 256  # of one recorded attribute; longer: head, hash, tail
QUERY_KEYS_MAX = 32  # recorded names of query parameters

WATCH_TIMER = "watch"
WATCH_S = 5.0  # deadlines are looked at this often: one may be late by this much
HEAD_S = 15.0  # from a head's first byte to its last → 408
IDLE_S = 75.0  # between requests, also before the first → end
STALL_S = 300.0  # no byte either way while a request or response is under way → 504 or cut
DRAIN_S = 10.0  # reading a refused body → end
