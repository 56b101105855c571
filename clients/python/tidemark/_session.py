"""The token of a session."""

from __future__ import annotations

import base64
import binascii
import struct
import threading

# A token is 33 bytes in base64url: version, origin, seen, fresh to, checksum.
_VERSION = 1
_LAYOUT = struct.Struct(">BQQQQ")


class Session:
    """Keeps the newest token that the client has seen, so that no read shows a state older
    than an earlier answer did.

    An answer to a call that presented no token may be older than the token at hand, and
    answers of parallel calls arrive in any order. So tokens of one origin are compared by
    what they have seen, and the greater one stays: one token, however many calls.
    """

    def __init__(self, token: str = "") -> None:
        self._lock = threading.Lock()
        self._token = token

    @property
    def token(self) -> str:
        with self._lock:
            return self._token

    def observe(self, token: str) -> None:
        """Takes the token of an answer, unless the one at hand is newer."""
        if not token:
            return
        with self._lock:
            if not _is_newer(self._token, token):
                self._token = token

    def forget(self, token: str) -> None:
        """Drops a token that the service refused: it is of another database, or of one
        that was restored to the past."""
        with self._lock:
            if self._token == token:
                self._token = ""


def _is_newer(one: str, other: str) -> bool:
    """Whether one is known to have seen more than other. Tokens of different origins, and
    of a version that this library does not know, cannot be compared."""
    first, second = _decode(one), _decode(other)
    return first is not None and second is not None and first[0] == second[0] and first[1] > second[1]


def _decode(token: str) -> tuple[int, int] | None:
    """The origin of a token, and what it has seen."""
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        version, origin, seen, _, _ = _LAYOUT.unpack(raw)
    except (binascii.Error, ValueError, struct.error):
        return None
    return (origin, seen) if version == _VERSION else None
