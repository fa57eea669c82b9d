"""What is there for those who look after the service: health, numbers, jobs over HTTP, notifications."""

from __future__ import annotations

import http.client
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from at_work import at_work
from typer.testing import CliRunner

from ptyplugin.cli import service_view
from ptyplugin.cli.app import app
from ptyplugin.cli.job_finding import held_up
from ptyplugin.jobs import open_read_only, submit
from ptyplugin.jobs.where import Where, read_where, write_where
from ptyplugin.model import LedgerError, Site
from ptyplugin.service import Daemon, Inline, health
from ptyplugin.service.operations import Operations
from ptyplugin.service.sources import Sources

STUB = "stub_solving:solve"
TOKEN = "0123456789abcdef-token"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(home=tmp_path / "home", ranks=1, http_port=0)


class Running:
    """A daemon with all that stands beside it, and questions to it."""

    def __init__(self, daemon: Daemon, operations: Operations) -> None:
        self.daemon, self.operations = daemon, operations

    def ask(self, target: str, **headers: str) -> tuple[int, str]:
        assert self.operations.app.address is not None
        connection = http.client.HTTPConnection(*self.operations.app.address, timeout=10)
        try:
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def json(self, target: str) -> Any:
        return json.loads(self.ask(target)[1])


@contextmanager
def running(site: Site, until: Callable[..., None], publish: Callable[[Path, str], object] | None = None) -> Iterator[Running]:
    with (
        Daemon(site, Inline(STUB), publish) as daemon,
        Sources(site) as sources,
        Operations(site, daemon, sources) as operations,
        at_work(daemon.run),
    ):
        until(lambda: read_where(site))
        yield Running(daemon, operations)


def test_a_service_that_is_well_says_so(site, until) -> None:
    with running(site, until) as service:
        status, body = service.ask("/healthz")
        answer = json.loads(body)
        assert (status, answer["status"]) == (200, "ok")
        checks = {check["name"]: check for check in answer["checks"]}
        assert {"ledger", "disk home", "disk results", "slot 1", "publisher"} <= checks.keys()
        assert checks["slot 1"]["sentence"] == "waits for a job"
        assert checks["slot 1"]["ready"]


def test_it_says_when_its_solver_is_not_warm_yet(site, until, make_job, monkeypatch) -> None:
    monkeypatch.setattr(Inline, "is_warm", False)
    with running(site, until) as service, open_read_only(site.ledger) as view:
        status, body = service.ask("/healthz")
        (slot,) = (check for check in json.loads(body)["checks"] if check["name"] == "slot 1")
        assert (status, slot["ok"], slot["ready"]) == (200, True, False)
        assert "warm up the solver" in slot["sentence"]
        assert samples(service.ask("/metrics")[1])['ptyplugin_slot_ready{slot="1"}'] == 0
        asked = service_view.service_of(site)
        assert asked is not None
        assert held_up(asked) == f"no job can begin now: {slot['sentence']}."
        submit(site, make_job())
        until(lambda: view.counts() == {"solved": 1})
        monkeypatch.setattr(Inline, "is_warm", True)
        assert held_up(asked) is None
        assert samples(service.ask("/metrics")[1])['ptyplugin_slot_ready{slot="1"}'] == 1


def test_what_needs_somebody_is_503_and_what_heals_itself_is_not(site, until, make_job, monkeypatch) -> None:
    def away(*_: object) -> None:
        raise RuntimeError("the catalog is away")

    with running(site, until, away) as service:
        submit(site, make_job())
        until(lambda: service.json("/healthz")["status"] == "degraded")
        status, body = service.ask("/healthz")
        assert status == 200
        assert "the catalog is away" in body
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=5_000_000))
            status, body = service.ask("/healthz")
            assert status == 503
            assert "has 0.0 GB left: make room" in body
        service.daemon.slots[0].trouble = None

        def full() -> None:
            raise LedgerError("the ledger cannot be written (database or disk is full): check the room on its disk.")

        monkeypatch.setattr(health, "_KEPT_S", -1.0)
        monkeypatch.setattr(service.daemon.ledger, "check", full)
        status, body = service.ask("/healthz")
        assert (status, json.loads(body)["status"]) == (503, "down")


def samples(text: str) -> dict[str, float]:
    """Prometheus' text, read strictly."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("#"):
            assert re.fullmatch(r"# (HELP|TYPE) ptyplugin_\w+ .+", line), line
            continue
        match = re.fullmatch(r'(ptyplugin_\w+(?:\{\w+="[^"]*"(?:,\w+="[^"]*")*\})?) (\S+)', line)
        assert match, line
        assert match[1] not in found
        found[match[1]] = float(match[2])
    return found


def test_numbers_for_prometheus(site, until, make_job) -> None:
    published: list[str] = []
    with running(site, until, lambda _, key: published.append(key)) as service, open_read_only(site.ledger) as view:
        for seed in range(3):
            submit(site, make_job(seed))
        submit(site, make_job(9, **{"raise": 0}))
        until(lambda: view.counts() == {"published": 3, "failed": 1})
        found = samples(service.ask("/metrics")[1])
    assert found['ptyplugin_jobs{state="published"}'] == 3
    assert found['ptyplugin_jobs{state="queued"}'] == 0
    assert found['ptyplugin_transitions_total{state="running"}'] == 4
    assert found["ptyplugin_seconds_to_catalog_count"] == found['ptyplugin_seconds_to_catalog_bucket{le="+Inf"}'] == 3
    assert 0 < found["ptyplugin_seconds_to_catalog_sum"] < 60
    assert found['ptyplugin_slot_well{slot="1"}'] == 1
    assert 1e7 < found["ptyplugin_resident_bytes"] < 1e11
    assert found['ptyplugin_free_bytes{folder="home"}'] > 0


def test_prometheus_client_understands_the_numbers(site, until) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    with running(site, until) as service:
        families = {family.name: family for family in parser.text_string_to_metric_families(service.ask("/metrics")[1])}
    assert families["ptyplugin_seconds_to_catalog"].type == "histogram"


def test_jobs_over_http_are_what_the_commands_say(site, until, make_job, tmp_path, monkeypatch) -> None:
    file = tmp_path / "site.toml"
    file.write_text(f'home = "{site.home}"\nhttp_port = 0\n')

    def command(*words: str) -> Any:
        result = CliRunner().invoke(app, ["jobs", *words, "--site", str(file), "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    job = make_job()
    asked: list[object] = []
    from_daemon = service_view.ServiceView._entry
    monkeypatch.setattr(service_view.ServiceView, "_entry", lambda self, record: asked.append(record) or from_daemon(self, record))
    with running(site, until) as service, open_read_only(site.ledger) as view:
        submit(site, job)
        until(lambda: view.counts() == {"solved": 1})
        listed, shown = command("list"), command("show", "7")
        assert asked, "the daemon was not asked"
        assert listed == service.json("/jobs") == service.json("/jobs?state=solved&scan_id=7")
        assert shown == service.json(f"/jobs/{job.key}") == service.json("/jobs/run-1")
        assert "ended with a result" in service.ask("/jobs/7/log")[1]
        assert service.json("/counts") == {"solved": 1}
    assert (shown["error"], [step["state"] for step in shown["history"]]) == (0.5, ["queued", "running", "solved"])
    # And the same from the file, when it is down.
    asked.clear()
    assert (command("list"), command("show", "7")) == (listed, shown)
    assert not asked


@pytest.mark.parametrize(
    ("target", "status", "says"),
    [
        ("/jobs/nothing", 404, "there is no job nothing"),
        ("/nothing", 404, "there is nothing at this path"),
        ("/jobs?state=lost", 400, "there is no state 'lost'"),
        ("/jobs?limit=-1", 400, "limit must be a number"),
        ("/jobs?limit=99999999999999999999", 400, "limit must be a number"),
        ("/jobs?order=1", 400, "there is no order to ask jobs by"),
        ("/jobs/..%2f..%2fetc%2fpasswd/log", 404, "there is no job"),
        ("/jobs/%00/log", 404, "there is no job"),
    ],
)
def test_questions_that_make_no_sense_are_sentences(site, until, target, status, says) -> None:
    with running(site, until) as service:
        got, body = service.ask(target)
        assert got == status
        assert says in json.loads(body)["error"]


def test_pages_from_elsewhere_cannot_read_the_loopback(site, until) -> None:
    with running(site, until) as service:
        assert service.ask("/jobs", Host="evil.example.org")[0] == 403
        assert service.ask("/jobs", Host="localhost:1")[0] == 200


def test_one_app_takes_jobs_and_answers(site, until, monkeypatch) -> None:
    monkeypatch.setenv("PTYPLUGIN_TOKEN", TOKEN)
    site = Site.model_validate({**site.model_dump(), "source": [{"kind": "http", "port": 0, "host": "0.0.0.0"}]})
    with running(site, until) as service:
        assert service.ask("/healthz")[0] == 200
        status, body = service.ask("/jobs")
        assert status == 401
        assert TOKEN not in body
        status, body = service.ask("/metrics", Authorization=f"Bearer {TOKEN}")
        assert status == 200
        assert samples(body)['ptyplugin_source_connected{source="HTTP 0.0.0.0:0"}'] == 1


def test_a_daemon_that_was_killed_does_not_mislead_the_commands(site, make_job, tmp_path) -> None:
    job = make_job()
    submit(site, job)
    with Daemon(site, Inline(STUB)) as inline:
        inline.run_once()
    write_where(site, Where("127.0.0.1", 1))
    assert service_view.service_of(site) is None
    (site.home / "service.json").write_text("[")
    assert service_view.service_of(site) is None


def test_one_port_for_two_daemons_is_a_sentence_and_both_work(site, until, tmp_path, make_job) -> None:
    with running(site, until) as service:
        assert service.operations.app.address is not None
        other = Site(home=tmp_path / "other", ranks=1, http_port=service.operations.app.address[1])
        with Daemon(other, Inline(STUB)) as daemon, Sources(other) as sources, Operations(other, daemon, sources) as operations:
            until(lambda: operations.app.state.last_error)
            assert "set another http_port in the site file" in str(operations.app.state.last_error)
            submit(other, make_job())
            daemon.run_once()
            with open_read_only(other.ledger) as view:
                assert view.counts() == {"solved": 1}
