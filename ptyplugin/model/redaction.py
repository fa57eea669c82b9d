"""Secrets in texts: what would show a key, a token or a password is put out of every log, sentence and answer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

#: What stands in the place of a secret.
HIDDEN = "***"
#: Addresses for notifications, which hold keys.
NOTIFY_VARIABLE = "PTYPLUGIN_NOTIFY"

#: Variables of the environment whose values are secrets.
_SECRET_NAME = re.compile(r"(API_?KEY|TOKEN|PASSWORD|SECRET)$", re.IGNORECASE)
#: A shorter value is a word that may stand anywhere.
_SHORTEST = 6
_PATTERNS = (
    (re.compile(r"\b([\w-]*(?:api_?key|token|password|secret)=)[^\s&;,'\"<>\\]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"\b((?:bearer|apikey)\s+)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1{HIDDEN}"),
    (re.compile(r"\b([a-z][a-z0-9+.-]*://)[^/\s@'\"\\]*@", re.IGNORECASE), rf"\1{HIDDEN}@"),
)


def redacted(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text without the secrets of the environment, and without what looks like one: ``api_key=...``, ``Bearer ...``, ``//me:word@``."""
    for secret in _secrets(environment):
        text = text.replace(secret, HIDDEN)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def is_secret(name: str) -> bool:
    """Whether the value of the environment variable with this name is not to be shown."""
    return name == NOTIFY_VARIABLE or bool(_SECRET_NAME.search(name))


def _secrets(environment: Mapping[str, str]) -> list[str]:
    """The longest first, so that none that holds another is left in pieces."""
    found = {form for value in _values(environment) if len(value) >= _SHORTEST for form in (value, quote(value, safe=""), quote(value))}
    return sorted(found, key=len, reverse=True)


def _values(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        if name == NOTIFY_VARIABLE:
            yield from value.replace(",", " ").split()
        elif _SECRET_NAME.search(name):
            yield value.strip()
