"""A credential of provider kubernetes: a service account's token for each lease."""

from collections.abc import Mapping

from agent.policy.declared import (
    LIST_MAX,
    PATH,
    SOURCES,
    URL,
    Declared,
    Kind,
    any_text,
    matching,
    one_source,
)

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"  # RFC 1123, as Kubernetes names namespaces


def _wrong(settings: Mapping[str, str]) -> tuple[str, str] | None:
    return one_source(settings, "our own token for the cluster")


KUBERNETES = Declared(
    "kubernetes",
    {
        "server": URL,
        "ca": PATH,
        **SOURCES,
        "namespace": Kind(matching(_LABEL, "a namespace")),
        "service_account": Kind(matching(rf"{_LABEL}(\.{_LABEL}){{0,3}}", "a service account")),
        "audiences": Kind(any_text, LIST_MAX),
    },
    ("server", "namespace", "service_account"),
    _wrong,
)
