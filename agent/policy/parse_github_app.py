"""A credential of provider github_app: a token of an installation, narrowed, for each lease."""

from collections.abc import Mapping

from agent.policy.declared import LIST_MAX, PATH, SOURCES, URL, Declared, Kind, matching, one_source

LEVELS = ("read", "write", "admin")


def _wrong(settings: Mapping[str, str]) -> tuple[str, str] | None:
    return one_source(settings, "the app's private key (PEM)")


GITHUB_APP = Declared(
    "github_app",
    {
        "app_id": Kind(matching(r"[A-Za-z0-9.]{1,64}", "the app's id, or its client id")),
        "installation_id": Kind(matching(r"[0-9]{1,19}", "the installation's number")),
        **SOURCES,
        "api_url": URL,
        "ca": PATH,
        "repositories": Kind(
            matching(r"[A-Za-z0-9._-]{1,100}", "a repository's name without its owner"), LIST_MAX
        ),
        "permissions": Kind(
            matching(
                rf"[a-z_]{{1,64}}:({'|'.join(LEVELS)})", "NAME:read, NAME:write or NAME:admin"
            ),
            LIST_MAX,
        ),
    },
    ("app_id", "installation_id"),
    _wrong,
)
