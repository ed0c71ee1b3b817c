"""The variables that make toolchains trust the run's bundle."""

from collections.abc import Mapping
from pathlib import Path

# each replaces the tool's own roots, so it gets the whole bundle
BUNDLE_VARIABLES = (
    "SSL_CERT_FILE",  # OpenSSL, Go, Ruby, Python's ssl, rustls-native-certs
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "DENO_CERT",
    "PGSSLROOTCERT",  # libpq's verify-full; the CA of the server itself would not do
)


def run_environment(
    before: Mapping[str, str], trust_dir: str, run_id: str, user: tuple[str, str] | None
) -> dict[str, str]:
    """Return the command's environment. user is (name, home) when it is another than ours."""
    trust = Path(trust_dir)
    after = dict(before)
    for name in BUNDLE_VARIABLES:
        after[name] = str(trust / "ca-bundle.pem")
    after["SSL_CERT_DIR"] = str(trust / "certs")
    after["NODE_EXTRA_CA_CERTS"] = str(trust / "ca.pem")  # adds to Node's own roots
    after["LOOPWARDEN_RUN"] = run_id
    if user is not None:
        name, home = user
        after |= {"USER": name, "LOGNAME": name, "HOME": home}
    return after
