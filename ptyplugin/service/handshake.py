"""How a daemon and a rank make sure of each other: each answers the other's challenge with a word that only who knows their token can make.

The token itself never goes over the connection.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Any

Fields = dict[str, Any]


class Challenge:
    """One side's question to the other. ``fields`` are for a message to it."""

    def __init__(self) -> None:
        self._nonce = secrets.token_hex(16)

    @property
    def fields(self) -> Fields:
        """What the other side needs for its answer."""
        return {"nonce": self._nonce}

    def is_met_by(self, token: str, side: str, message: Fields) -> bool:
        """Whether the message comes from one who knows the token and is on this side ("rank" or "daemon")."""
        return hmac.compare_digest(_proof(token, side, self._nonce).encode(), _bytes(str(message.get("proof"))))


def answer(token: str, side: str, challenged: Fields) -> Fields:
    """What shows the other side, which sent ``challenged``, that this one knows the token."""
    return {"proof": _proof(token, side, str(challenged.get("nonce")))}


def _proof(token: str, side: str, nonce: str) -> str:
    # With the side in it, nobody's own answer can be sent back to it.
    return hmac.new(token.encode(), _bytes(f"{side} {nonce}"), "sha256").hexdigest()


def _bytes(text: str) -> bytes:
    # JSON may hold halves of characters, for which there are no bytes.
    return text.encode(errors="replace")
