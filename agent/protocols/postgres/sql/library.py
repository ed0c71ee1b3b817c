"""libpg_query, the PostgreSQL server's own parser, through its C interface (pg_query.h).

The shared library lies in the package `postgast` (BSD-2; libpg_query is BSD-3 and PostgreSQL's
licence). Its Python code is not imported: that would bring protobuf into every role. Results are
structures by value; each is given back to its own free function, which frees all that it points
to. The library reads up to the first NUL, and holds its error state a thread.
"""

import ctypes
import importlib.util
from ctypes import POINTER, Structure, c_char_p, c_int
from typing import Final

GRAMMAR: Final = "PostgreSQL 18"
PACKAGE: Final = "postgast"
FILE: Final = "libpg_query.so"


class Refused(Exception):
    """The text is no SQL of this grammar. Its message may quote the text."""


class _Error(Structure):
    """PgQueryError."""

    _fields_ = (
        ("message", c_char_p),
        ("funcname", c_char_p),
        ("filename", c_char_p),
        ("lineno", c_int),
        ("cursorpos", c_int),
        ("context", c_char_p),
    )


class _Parsed(Structure):
    """PgQueryParseResult."""

    _fields_ = (
        ("parse_tree", c_char_p),
        ("stderr_buffer", c_char_p),
        ("error", POINTER(_Error)),
    )


class _Normalized(Structure):
    """PgQueryNormalizeResult."""

    _fields_ = (
        ("normalized_query", c_char_p),
        ("error", POINTER(_Error)),
    )


def _load() -> ctypes.CDLL:
    spec = importlib.util.find_spec(PACKAGE)  # finds it without running it
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"the package {PACKAGE}, which has libpg_query, is not installed")
    library = ctypes.CDLL(f"{spec.submodule_search_locations[0]}/{FILE}")
    library.pg_query_parse.argtypes = (c_char_p,)
    library.pg_query_parse.restype = _Parsed
    library.pg_query_free_parse_result.argtypes = (_Parsed,)
    library.pg_query_free_parse_result.restype = None
    library.pg_query_normalize.argtypes = (c_char_p,)
    library.pg_query_normalize.restype = _Normalized
    library.pg_query_free_normalize_result.argtypes = (_Normalized,)
    library.pg_query_free_normalize_result.restype = None
    return library


_LIBRARY = _load()


def parse(sql: bytes) -> bytes:
    """Return the raw parse tree of UTF-8 text without NUL as JSON.

    Raises:
        Refused: it does not parse.
    """
    result = _LIBRARY.pg_query_parse(sql)
    try:
        if result.error:
            raise Refused((result.error.contents.message or b"").decode("utf-8", "replace"))
        tree: bytes = result.parse_tree
        return tree
    finally:
        _LIBRARY.pg_query_free_parse_result(result)


def normalize(sql: bytes) -> str:
    """Return text that parses with `$n` for its constants.

    Raises:
        Refused: it does not parse.
    """
    result = _LIBRARY.pg_query_normalize(sql)
    try:
        if result.error:
            raise Refused((result.error.contents.message or b"").decode("utf-8", "replace"))
        text: bytes = result.normalized_query
        return text.decode("utf-8", "replace")
    finally:
        _LIBRARY.pg_query_free_normalize_result(result)
