"""The last line of a job's log; texts without secrets."""

from __future__ import annotations

import pytest

from ptyplugin.jobs import open_read_only, submit
from ptyplugin.service import Daemon, Inline

STUB = "stub_solving:solve"
SECRET = "hush-hush-hush"


@pytest.mark.parametrize(
    ("asked", "says"),
    [({}, "start 1 ended with a result."), ({"raise": 0}, "start 1 ended without a result: frame 3 of a.h5 cannot be read")],
)
def test_a_log_has_a_last_line(site, make_job, asked, says) -> None:
    key = submit(site, make_job(1, **asked))
    with Daemon(site, Inline(STUB)) as inline:
        inline.run_once()
    assert says in (site.jobs / key / "log.txt").read_text().splitlines()[-1]


def test_a_traceback_in_a_log_has_no_secrets(site, make_job, monkeypatch) -> None:
    monkeypatch.setenv("TILED_API_KEY", "division by zero")
    key = submit(site, make_job(1, bug=0))
    with Daemon(site, Inline(STUB)) as inline:
        inline.run_once()
    log = (site.jobs / key / "log.txt").read_text()
    assert "ZeroDivisionError: ***" in log
    assert "division by zero\n" not in log


def test_the_publisher_says_what_is_wrong_until_it_is_over(site, make_job, monkeypatch) -> None:
    monkeypatch.setenv("TILED_API_KEY", SECRET)
    away = [True]

    def publish(*_: object) -> None:
        if away[0]:
            raise RuntimeError(f"http://127.0.0.1:1/?api_key={SECRET} is away")

    key = submit(site, make_job(1))
    with Daemon(site, Inline(STUB), publish) as inline:
        inline.run_once()
        publisher = inline.publisher
        assert publisher is not None
        assert publisher.trouble == "publishing ended with RuntimeError: http://127.0.0.1:1/?api_key=*** is away."
        with open_read_only(site.ledger) as view:
            assert SECRET not in str(view.show(key).sentence)
        away[0] = False
        publisher._waits.clear()
        inline.run_once()
        assert publisher.trouble is None
