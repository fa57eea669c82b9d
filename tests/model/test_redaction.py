"""Secrets in texts."""

from __future__ import annotations

import pytest

from ptyplugin.model.redaction import redacted

ENVIRONMENT = {
    "TILED_API_KEY": "s3cr3t/key+1",
    "PTYPLUGIN_TOKEN": "0123456789abcdef",
    "PTYPLUGIN_NOTIFY": "mailtos://visitor:pa55word@example.org, slack://AAAA/BBBB/CCCC",
    "SHORT_TOKEN": "on",
    "HOME": "/home/visitor",
}


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("it answers 401 to s3cr3t/key+1 at /home/visitor", "it answers 401 to *** at /home/visitor"),
        ("http://h/?api_key=s3cr3t%2Fkey%2B1&page=2", "http://h/?api_key=***&page=2"),
        ("Authorization: Bearer 0123456789abcdef", "Authorization: Bearer ***"),
        ("slack://AAAA/BBBB/CCCC refused it", "*** refused it"),
        # None of the environment's:
        ("http://h/?api_key=another&page=2", "http://h/?api_key=***&page=2"),
        ("https://me:word@h/x", "https://***@h/x"),
        ("'Authorization': 'Apikey zyxwvut'", "'Authorization': 'Apikey ***'"),
        # No secrets:
        ("set PTYPLUGIN_TOKEN: it goes on", "set PTYPLUGIN_TOKEN: it goes on"),
        ("the bearer is on file://localhost/a@b.h5", "the bearer is on file://localhost/a@b.h5"),
    ],
)
def test_what_is_secret_goes_and_all_else_stays(text, clean) -> None:
    assert redacted(text, ENVIRONMENT) == clean
