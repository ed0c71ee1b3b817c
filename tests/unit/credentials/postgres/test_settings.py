"""Settings of roles, as strict from the journal as from the policy."""

import json

import pytest

from agent.credentials.postgres.settings import CONNECTION_LIMIT, read_settings
from agent.credentials.spec import CredentialError
from agent.policy.parse_role import CONNECTION_LIMIT_MAX, STATEMENT_TIMEOUT_S_MAX
from agent.policy.sql_grants import GRANTS_MAX

GOOD = {"admin": "adm", "file": "/x", "address": "db.internal:5432", "database": "orders"}


def test_defaults() -> None:
    """Little must be said; what a run made becomes the admin's."""
    settings = read_settings(GOOD)
    assert (settings.host, settings.port, settings.name) == ("db.internal", 5432, "")
    assert (settings.grants, settings.member_of, settings.search_path) == ((), (), ())
    assert settings.connection_limit == CONNECTION_LIMIT
    assert settings.statement_timeout_s == 0
    assert settings.reassign_to == settings.admin == "adm"
    assert read_settings({**GOOD, "on_drop": "drop"}).reassign_to == ""
    assert read_settings({**GOOD, "address": "[::1]:1"}).host == "::1"


@pytest.mark.parametrize(
    "changes",
    [
        {"admin": ""},
        {"admin": "a b"},
        {"environment": "X"},
        {"address": "db"},
        {"address": "db:0"},
        {"address": "db:65536"},
        {"address": "db:5432/x"},
        {"database": ""},
        {"database": "a\nb"},
        {"grants": "SELECT ON x"},
        {"grants": '"SELECT ON x"'},
        {"grants": "[1]"},
        {"grants": "[" * 10_000},
        {"grants": json.dumps(["SELECT ON x"] * (GRANTS_MAX + 1))},
        {"grants": '["DROP TABLE x"]'},
        {"member_of": '["adm"]'},
        {"member_of": '["pg_read_server_files"]'},
        {"member_of": '["PG_execute_server_program"]'},
        {"member_of": '["a b"]'},
        {"search_path": '[""]'},
        {"statement_timeout": "-1"},
        {"statement_timeout": str(STATEMENT_TIMEOUT_S_MAX + 1)},
        {"connection_limit": str(CONNECTION_LIMIT_MAX + 1)},
        {"connection_limit": "٣"},
        {"on_drop": "keep"},
        {"on_drop": "drop", "reassign_to": "x"},
        {"unknown": "x"},
    ],
)
def test_what_is_refused(changes: dict[str, str]) -> None:
    """Each with a reason, and with certainty that nothing was made."""
    with pytest.raises(CredentialError, match="a credential of provider postgres") as caught:
        read_settings({**GOOD, **changes})
    assert caught.value.nothing_made


def test_at_the_limits() -> None:
    """The largest of each is taken."""
    settings = read_settings(
        {
            **GOOD,
            "grants": json.dumps(["SELECT ON x"] * GRANTS_MAX),
            "statement_timeout": str(STATEMENT_TIMEOUT_S_MAX),
            "connection_limit": str(CONNECTION_LIMIT_MAX),
        }
    )
    assert len(settings.grants) == GRANTS_MAX
