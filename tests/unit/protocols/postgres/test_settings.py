"""What a session starts with: what the loop may say, what is pinned, what the server tells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model.grant import PostgresOptions
from agent.model.sql import Effect
from agent.protocols.postgres import limits
from agent.protocols.postgres.answers import Refused
from agent.protocols.postgres.frames import Malformed
from agent.protocols.postgres.settings import PINNED, Settings, checked_database, split_options
from agent.protocols.postgres.sql import classify, touches_pinned

TOLD = {
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "session_authorization": "u",
    "default_transaction_read_only": "off",
}


def _settings(target: PostgresOptions | None = None, /, **asked: str) -> Settings:
    parameters = {"user": "agent"} | asked
    return Settings(target or PostgresOptions(), tuple(parameters.items()))


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", []),
        ("  \t\n ", []),
        ("-c a=b", [("a", "b")]),
        ("-ca=b", [("a", "b")]),
        ("--a=b", [("a", "b")]),
        ("--a-b-c=d-e", [("a_b_c", "d-e")]),
        ("-c a-b=c", [("a_b", "c")]),
        ("-c a=", [("a", "")]),
        ("-c a=b=c", [("a", "b=c")]),
        (r"-c a=b\ c", [("a", "b c")]),
        (r"-c a=\\", [("a", "\\")]),
        (r"-c a=b\-c", [("a", "b-c")]),
        ("-c\va=b\f-c\rc=d", [("a", "b"), ("c", "d")]),
        ("-c a=b\\", [("a", "b")]),
        ("-c a=\u00a0b", [("a", "\u00a0b")]),
    ],
)
def test_options(text: str, settings: list[tuple[str, str]]) -> None:
    """`options` is split as the server splits its command line."""
    assert list(split_options(text)) == settings


@pytest.mark.parametrize(
    "text", ["-c", "-c a", "-c =b", "--", "--a", "a=b", "-d", "-e", "-f s", "-S 5", "- c a=b", "-"]
)
def test_options_that_are_none(text: str) -> None:
    """What is no setting is refused, not skipped."""
    with pytest.raises(Malformed):
        list(split_options(text))


@given(text=st.text(max_size=60))
def test_any_options(text: str) -> None:
    """Any text is settings or Malformed."""
    try:
        found = list(split_options(text))
    except Malformed:
        return
    assert all(name for name, _ in found)


def test_options_at_their_number() -> None:
    """PARAMETERS_MAX settings in `options` are taken, and one more is refused."""
    at = "-c jit=on " * limits.PARAMETERS_MAX
    assert _settings(options=at).upstream("x")["jit"] == "on"
    with pytest.raises(Malformed):
        _settings(options=at + "-c jit=on")


@pytest.mark.parametrize(
    ("name", "same", "other"),
    [
        (
            "client_encoding",
            ["UTF8", "utf-8", "'UTF_8'", "Unicode"],
            ["", "UTF16", "auto", "utf8x"],
        ),
        ("standard_conforming_strings", ["on", "TRUE", "1", "yes"], ["off", "", "o", "0"]),
        ("backslash_quote", ["safe_encoding", "SAFE_ENCODING"], ["on", "off", "safe"]),
    ],
)
def test_pinned(name: str, same: list[str], other: list[str]) -> None:
    """A pinned setting may be asked for as it is, in any spelling, and is sent as it is pinned."""
    for value in same:
        for asked in ({name: value}, {"options": f"-c {name}={value}"}, {name.upper(): value}):
            assert _settings(**asked).upstream("x")[name] == PINNED[name]
    for value in other:
        with pytest.raises(Refused) as caught:
            _settings(**{name: value})
        assert caught.value.refusal.status == "42501"
        assert name in caught.value.refusal.explanation


def test_what_may_be_asked_for() -> None:
    """Harmless settings pass, in lower case; one name with two values is refused."""
    asked = _settings(DateStyle="ISO", Extra_Float_Digits="3", options="-c enable_seqscan=off")
    sent = asked.upstream("loopwarden/x")
    assert sent["datestyle"] == "ISO"
    assert sent["extra_float_digits"] == "3"
    assert sent["enable_seqscan"] == "off"
    assert _settings(options="-c jit=off", jit="off").upstream("x")["jit"] == "off"
    with pytest.raises(Malformed):
        _settings(options="-c jit=off", jit="on")
    for name in ("synchronous_commit", "work_mem"):  # as SET may change them
        assert _settings(options=f"-c {name}=off").upstream("x")[name] == "off"
    for name in (
        *("local_preload_libraries", "session_preload_libraries", "row_security"),
        *(
            "log_statement",
            "role",
            "session_replication_role",
            "enable_x;y",
            "enable_a.b.c",
            "",
            "a b",
        ),
    ):
        with pytest.raises(Refused) as caught:
            _settings(options=f"-c {name.replace(' ', chr(92) + ' ') or 'x'}=1")
        assert "\n" not in caught.value.refusal.explanation


def test_a_setting_of_the_applications_own_is_named_with_the_way() -> None:
    """It is refused at startup by its name, and the next step says that a statement may set it."""
    for asked in ({"options": "-c app.tenant=7"}, {"App.Tenant": "7"}):
        with pytest.raises(Refused) as caught:
            _settings(**asked)
        refusal = caught.value.refusal
        assert (refusal.status, "app.tenant" in refusal.explanation) == ("42501", True)
        assert refusal.next_step.endswith("a statement can SET it once the session is open.")
    (statement,) = classify("SET app.tenant = '7'").statements
    assert statement.effects == {Effect.SESSION}
    assert not touches_pinned(statement)


@given(application=st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_the_application_s_name(application: str) -> None:
    """However long the loop's name, ours is whole behind it, and both fit."""
    name = "loopwarden/" + "R" * 26
    sent = _settings(application_name=application).upstream(name)["application_name"]
    assert sent.endswith(name)
    assert len(sent.encode()) <= limits.APPLICATION_NAME_BYTES_MAX
    assert sent.isascii()


def test_the_target_s_settings_are_pinned() -> None:
    """What the target sets, the loop may ask for only as it is."""
    options = PostgresOptions(settings=(("Search_Path", "sales"),), read_only=True)
    sent = _settings(options).upstream("x")
    assert sent["search_path"] == "sales"
    assert sent["default_transaction_read_only"] == "on"
    with pytest.raises(Refused):
        _settings(options, search_path="public")
    with pytest.raises(Refused):
        _settings(options, default_transaction_read_only="off")


def test_what_the_server_tells() -> None:
    """Pinned parameters have to be told as they are; older servers do not tell all of them."""
    plain, read_only = _settings(), _settings(PostgresOptions(read_only=True))
    assert plain.pinned(TOLD, "u") == {
        name: TOLD[name]
        for name in ("client_encoding", "standard_conforming_strings", "session_authorization")
    }
    without = {k: v for k, v in TOLD.items() if k != "default_transaction_read_only"}
    assert "default_transaction_read_only" not in read_only.pinned(without, "u")
    for told, user in (
        (TOLD | {"client_encoding": "SQL_ASCII"}, "u"),
        (TOLD | {"standard_conforming_strings": "off"}, "u"),
        (TOLD, "v"),
        ({"client_encoding": "UTF8"}, "u"),
        ({"standard_conforming_strings": "on"}, "u"),
    ):
        with pytest.raises(Refused):
            plain.pinned(told, user)
    with pytest.raises(Refused):
        read_only.pinned(TOLD, "u")


@pytest.mark.parametrize("value", ["", "off", "FALSE", "no", "0"])
def test_no_replication(value: str) -> None:
    """A replication parameter that says no is none."""
    assert not _settings(replication=value).replication


def test_databases() -> None:
    """A name of 63 bytes is one, a longer one would be cut by the server."""
    size = limits.IDENTIFIER_BYTES_MAX
    assert checked_database(PostgresOptions(), "d" * size) == "d" * size
    for name in ("d" * (size + 1), "é" * 32):
        with pytest.raises(Refused):
            checked_database(PostgresOptions(), name)
