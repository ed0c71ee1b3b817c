"""What STS answers: XML, read without believing it. Nothing of it is ever quoted.

No document type is read, so that no entity is ever expanded; depth, elements and text are bounded
(the body already is, by spec.SECRET_BYTES_MAX).
"""

from xml.parsers import expat

from agent.credentials.replies import refusal
from agent.credentials.spec import CredentialError, HttpReply

WHO = "STS"
DEPTH_MAX = 16  # of elements; a real answer has 4 → no answer
ELEMENTS_MAX = 256  # a real answer has 15 → no answer
_SENDERS = {  # code → what a person does about it
    "AccessDenied": "the role does not trust us, or we may not assume it: see its trust policy",
    "ExpiredToken": "our own keys have expired",
    "ExpiredTokenException": "the identity token has expired",
    "IDPRejectedClaim": "the issuer of the identity token does not know it (any more)",
    "InvalidClientTokenId": "there is no such access_key_id",
    "InvalidIdentityToken": "the account has no identity provider for this token's issuer",
    "MalformedPolicyDocument": "the session policy is not one",
    "PackedPolicyTooLarge": "session policy, policy_arns and tags are too much together",
    "RegionDisabledException": "STS is not activated in this region for the account",
    "RequestExpired": "compare this host's clock",
    "SignatureDoesNotMatch": "compare the secret key of access_key_id, and this host's clock",
    "ValidationError": "a setting is not one: compare duration with the role's own longest",
}
_LATER = frozenset(
    {"Throttling", "ThrottlingException", "IDPCommunicationError", "ServiceUnavailable"}
)


def leaves_of(reply: HttpReply) -> dict[str, str]:
    """Return the texts of a reply's elements that have no other inside, by name.

    Raises:
        CredentialError: it is no such XML, or has one name twice.
    """
    reader = _Reader()
    try:
        return reader.read(reply.body.reveal())
    except (expat.ExpatError, ValueError):
        text = f"{WHO} answers {reply.status} without its XML: is the endpoint right?"
        raise CredentialError(text) from None


def refused(reply: HttpReply) -> CredentialError:
    """Return what an answer that is no success means."""
    try:
        code = leaves_of(reply).get("Code", "")
    except CredentialError:
        code = ""
    error = refusal(reply, WHO, code if code in _SENDERS else "", _SENDERS.get(code, ""))
    if code in _LATER:
        error.transient = True
    return error


class _Reader:
    """One document."""

    def __init__(self) -> None:
        self._found: dict[str, str] = {}
        self._path: list[str] = []
        self._text = ""
        self._elements = 0
        self._leaf = False

    def read(self, body: bytes) -> dict[str, str]:
        """Read all of it.

        Raises:
            ValueError, ExpatError: it is not as it has to be.
        """
        parser = expat.ParserCreate("utf-8")
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.ProcessingInstructionHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.Parse(body, True)
        return self._found

    def _refuse(self, *_: object) -> None:
        raise ValueError("a document type")

    def _start(self, name: str, _: object) -> None:
        self._elements += 1
        self._path.append(name.rpartition(":")[2])
        if len(self._path) > DEPTH_MAX or self._elements > ELEMENTS_MAX:
            raise ValueError("too many elements")
        self._text, self._leaf = "", True

    def _characters(self, text: str) -> None:
        self._text += text

    def _end(self, _: str) -> None:
        name = self._path.pop()
        if self._leaf:
            if name in self._found:
                raise ValueError("a name twice")
            self._found[name] = self._text.strip()
        self._leaf = False
