"""What PostgreSQL text does, by the server's own grammar (libpg_query).

`classify` is pure and may end the process on text made to break the parser: run it in a child.
"""

from agent.protocols.postgres.sql.classifying import CLASSIFY_BYTES_MAX as CLASSIFY_BYTES_MAX
from agent.protocols.postgres.sql.classifying import classify as classify
from agent.protocols.postgres.sql.kin import is_shared as is_shared
from agent.protocols.postgres.sql.kin import kin as kin
from agent.protocols.postgres.sql.session_state import RUNS_PREPARED as RUNS_PREPARED
from agent.protocols.postgres.sql.settings import PINNED as PINNED
from agent.protocols.postgres.sql.settings import breaks_pin as breaks_pin
from agent.protocols.postgres.sql.settings import touches_pinned as touches_pinned
