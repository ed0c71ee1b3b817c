"""The texts of one session that are being classified: answered in the order in which they came."""

import collections
from collections.abc import Callable
from dataclasses import dataclass

from agent.model.ids import RunId
from agent.model.sql import Classified
from agent.proxy.classifier import Classifier


@dataclass(slots=True, eq=False)
class _Waiting:
    """A text and, once it is there, its class."""

    text: str
    classified: Classified | None


class Texts:
    """One session's."""

    __slots__ = ("_classifier", "_run_id", "_then", "_waiting")

    def __init__(
        self, classifier: Classifier, run_id: RunId, then: Callable[[str, Classified], None]
    ) -> None:
        self._classifier = classifier
        self._run_id = run_id
        self._then = then
        self._waiting: collections.deque[_Waiting] = collections.deque()

    def classify(self, dialect: str, text: str) -> None:
        """Have a text classified; `then` hears of it, at once when it is known already."""
        known = self._classifier.known(dialect, text)
        if known is not None and not self._waiting:
            self._then(text, known)
            return
        entry = _Waiting(text, known)
        self._waiting.append(entry)
        if known is None:
            self._classifier.classify(
                dialect, text, self._run_id, lambda found: self._found(entry, found)
            )

    def _found(self, entry: _Waiting, classified: Classified) -> None:
        entry.classified = classified
        while self._waiting and (found := self._waiting[0].classified) is not None:
            self._then(self._waiting.popleft().text, found)
