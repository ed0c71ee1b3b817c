"""AWS for tests: moto behind a check of every signature. Run by the interpreter that has moto.

argv: address, port, chain and key (PEM), log, the operator's access key id, the file of its secret.
The log has a line for each request; keys that STS made are in it, so it is the far host's own.
"""

import datetime as dt
import io
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.s3.models import s3_backends
from werkzeug.serving import make_server

from tests.servers.aws_verifier import Keys, WrongSignature, verify

ACCOUNT, REGION, BUCKET = "123456789012", "eu-west-1", "reports"
_ITEMS = "tests.headers"
_UNSIGNED = b"Action=AssumeRoleWithWebIdentity&"
Environ = dict[str, Any]
Start = Callable[..., Any]


class Recording(MotoRequestHandler):  # type: ignore[misc]
    """Keeps the field lines as they came."""

    def make_environ(self) -> Environ:
        """See WSGIRequestHandler."""
        environ: Environ = super().make_environ()
        environ[_ITEMS] = list(self.headers.items())
        return environ

    def log(self, *_: object) -> None:
        """Nothing is printed."""


class Checked:
    """Refuses what is not signed as it has to be, and writes down what comes."""

    def __init__(self, log: Path, known: dict[str, Keys]) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._log, self._known = log, known

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        """Answer a request."""
        ended = environ.get("wsgi.input_terminated")  # a chunked body
        length = -1 if ended else int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        headers, target = environ[_ITEMS], environ["REQUEST_URI"]
        said: dict[str, object] = {"method": environ["REQUEST_METHOD"], "target": target}
        said["host"] = environ["HTTP_HOST"]
        said["names"] = [name.lower() for name, _ in headers]
        try:
            if not body.startswith(_UNSIGNED):
                found = verify(
                    environ["REQUEST_METHOD"], target, headers, body, self._known,
                    now=dt.datetime.now(dt.UTC),
                )  # fmt: skip
                said |= {"key": found.access_key_id, "service": found.service}
                said["payload"] = found.payload
        except (WrongSignature, KeyError, ValueError) as error:
            self._write(said | {"wrong": str(error)})
            start("403 Forbidden", [("Content-Type", "application/xml")])
            text = f"<Error><Code>SignatureDoesNotMatch</Code><Message>{error}</Message></Error>"
            return [text.encode()]
        answer = b"".join(self._app(environ, start))
        keys = re.findall(rb"<(AccessKeyId|SecretAccessKey|SessionToken)>([^<]+)<", answer)
        if len(keys) == 3:
            made = {name.decode(): value.decode() for name, value in keys}
            self._known[made["AccessKeyId"]] = Keys(made["SecretAccessKey"], made["SessionToken"])
            said |= {"made": made, "asked": body.decode()}
        self._write(said)
        return [answer]

    def _write(self, said: dict[str, object]) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(said) + "\n")


def main() -> None:
    """Serve until we are killed."""
    address, port, chain, key, log, key_id, secret = sys.argv[1:]
    s3_backends[ACCOUNT]["aws"].create_bucket(BUCKET, REGION)
    known = {key_id: Keys(Path(secret).read_text(encoding="ascii").strip())}
    app = Checked(Path(log), known)
    server = make_server(
        address, int(port), app, threaded=True, request_handler=Recording, ssl_context=(chain, key)
    )
    server.serve_forever()


main()
