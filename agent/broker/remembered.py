"""Secrets of providers on stable storage: what a backend changes at each use (refresh tokens).

One file a key, mode 0600, in a folder of mode 0700 that is the broker's; a file's name is a hash,
so that neither tells the key. A new value replaces the old one whole, or not at all.
"""

import contextlib
import hashlib
import os
from pathlib import Path

from agent.broker.files import Untrusted, read_secret
from agent.credentials.spec import REMEMBERED_MAX, SECRET_BYTES_MAX, CredentialError
from agent.model.secret import Secret


class Remembered:
    """Small files, rarely written: on the event loop's own thread."""

    def __init__(self, folder: Path | None) -> None:
        """Without a folder nothing is remembered, and remembering fails."""
        self._folder = folder

    def recall(self, key: str) -> Secret | None:
        """Return what was remembered.

        Raises:
            CredentialError: it can't be read.
        """
        if self._folder is None:
            return None
        try:
            return Secret(read_secret(str(self._path(self._folder, key)), SECRET_BYTES_MAX))
        except FileNotFoundError:
            return None
        except Untrusted as error:
            raise CredentialError(str(error), nothing_made=True) from error
        except OSError as error:
            text = f"{self._folder}: {error.strerror}"
            raise CredentialError(text, transient=True, nothing_made=True) from error

    def remember(self, key: str, secret: Secret) -> None:
        """Write it, sync it, then put it in the place of the old one.

        Raises:
            CredentialError: it is not on stable storage, or there are REMEMBERED_MAX others.
        """
        if self._folder is None:
            raise CredentialError("there is no folder for what is to be remembered")
        if len(secret.reveal()) > SECRET_BYTES_MAX:
            raise CredentialError(f"more than {SECRET_BYTES_MAX} bytes are not remembered")
        path = self._path(self._folder, key)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if not path.exists() and len(os.listdir(self._folder)) >= REMEMBERED_MAX:
                raise CredentialError(
                    f"{self._folder} has {REMEMBERED_MAX} files: remove those of targets that are "
                    "no more"
                )
            _replace(self._folder, path, secret)
        except OSError as error:
            raise CredentialError(f"{self._folder}: {error.strerror}", transient=True) from error

    @staticmethod
    def _path(folder: Path, key: str) -> Path:
        return folder / hashlib.sha256(key.encode()).hexdigest()


def _replace(folder: Path, path: Path, secret: Secret) -> None:
    new = path.with_suffix(".new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()  # of a crash
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(secret.reveal())
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(new, path)
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
