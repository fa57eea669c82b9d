"""HTTP submit: who has the token hands jobs and runs over; an answer means that the inbox has them."""

from __future__ import annotations

import errno
import http.client
import io
import json
import socket
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.scan_burst import scan_documents
from ptyplugin.callbacks import AutoReconstruct
from ptyplugin.jobs import Inbox, Ledger, RemoteInbox
from ptyplugin.jobs.contents import parse
from ptyplugin.jobs.packing import pack, unpack
from ptyplugin.model import Growth, Job, JobError, Site, SiteError, put_beside
from ptyplugin.service import accepting
from ptyplugin.service.sources import Sources, http_submit
from ptyplugin.service.sources.http_submit import HttpSource

TOKEN = "0123456789abcdef-token"


class Service:
    """A site whose sources run, and requests to its HTTP source."""

    def __init__(self, site: Site, source: HttpSource) -> None:
        self.site, self.source = site, source
        assert source.address is not None
        self.host, self.port = source.address
        self.uri = f"http://{self.host}:{self.port}"

    def post(self, path: str, body: bytes, token: str | None = TOKEN, **headers: str) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        try:
            connection.request("POST", path, body, {**({"Authorization": f"Bearer {token}"} if token else {}), **headers})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def waiting(self) -> list[Any]:
        return [parse((item / "job.json").read_bytes()) for item in Inbox(self.site.inbox).waiting()]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until) -> Iterator[Service]:
    monkeypatch.setenv("PTYPLUGIN_TOKEN", TOKEN)
    table = {"kind": "http", "port": 0, "profiles": ["sim"], "largest_mb": 0.1}
    site = Site.model_validate({"home": tmp_path / "home", "source": [table]})
    with Ledger(site.ledger), Sources(site) as sources:
        (source,) = sources.each
        assert isinstance(source, HttpSource)
        until(lambda: source.address)
        yield Service(site, source)


@pytest.mark.parametrize("token", [None, "", "0123456789abcdef-tokem", "tökén"])
def test_a_wrong_token_is_refused_and_nothing_is_taken(service: Service, make_job, token: str | None) -> None:
    status, answer = service.post("/jobs", make_job().to_bytes(), token and token.encode().decode("latin-1"))
    assert status == 401
    assert "token is missing or wrong" in answer["error"]
    assert TOKEN not in answer["error"]
    assert service.waiting() == []
    assert service.source.state.counts["refused"] == 1


def test_a_job_is_in_the_inbox_when_it_is_acknowledged(service: Service, make_job) -> None:
    job = make_job()
    assert service.post("/jobs", job.to_bytes()) == (200, {"key": job.key})
    assert service.waiting() == [job]
    assert service.source.state.to_dict()["counts"] == {"documents": 1, "jobs": 1}


def with_positions(job: Job, frames: int = 5) -> tuple[Job, dict[str, Any]]:
    arrays: dict[str, Any] = {}
    beside = put_beside("positions.npy", np.zeros((frames, 1, 2)), arrays)
    return Job.model_validate({**dict(job), "positions_m": beside}), arrays


def test_the_remote_inbox_sends_arrays_too(service: Service, make_job) -> None:
    job, arrays = with_positions(make_job())
    assert RemoteInbox(service.uri, TOKEN)(service.site, job, arrays) == job.key
    (item,) = Inbox(service.site.inbox).waiting()
    np.testing.assert_array_equal(np.load(item / "positions.npy"), arrays["positions.npy"])


def test_growth_comes_with_its_arrays_too(service: Service) -> None:
    arrays: dict[str, Any] = {}
    growth = Growth(job="0" * 16, first=4, frame_ids=[(4, 9)], positions_m=put_beside("positions.npy", np.zeros((5, 1, 2)), arrays))
    RemoteInbox(service.uri, TOKEN).grow(service.site, growth, arrays)
    (item,) = Inbox(service.site.inbox).waiting()
    assert Growth.from_bytes((item / "growth.json").read_bytes()) == growth
    np.testing.assert_array_equal(np.load(item / "positions.npy"), arrays["positions.npy"])
    with pytest.raises(JobError, match="not those that the growth of job names"):
        RemoteInbox(service.uri, TOKEN).grow(service.site, growth)


def test_a_session_on_another_host_hands_its_scans_over(service: Service, tmp_path: Path) -> None:
    auto = AutoReconstruct("sim", Site(home=tmp_path / "elsewhere"), RemoteInbox(service.uri, TOKEN))
    for name, document in scan_documents("run-far", 3, tmp_path / "frames.h5", 5.0):
        auto(name, document)
    assert auto.flush(10)
    assert [job.source.run_uid for job in service.waiting()] == ["run-far"]


def test_what_is_too_large_is_refused_before_it_is_read(service: Service, make_job) -> None:
    job, arrays = with_positions(make_job(), frames=20_000)
    with pytest.raises(JobError, match=r"did not take job .*0\.3 MB, more than the 0\.1 MB"):
        RemoteInbox(service.uri, TOKEN)(service.site, job, arrays)
    assert service.post("/jobs", b"", **{"Content-Length": "99999999999"})[0] == 413
    assert service.waiting() == []


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/jobs", b"{", 400, "cannot be read"),
        ("/jobs", b"\xff\x00", 400, "cannot be read"),
        ("/jobs", b"PK\x03\x04nothing", 400, "the ZIP cannot be read"),
        ("/growth", b"{}", 400, "this growth of a job cannot be read: job"),
        ("/runs", b"{", 400, "line 1 of the documents is no JSON"),
        ("/runs", b"\xff", 400, "are no text"),
        ("/runs", b'["start", 5]', 400, "line 1 is no document"),
        ("/runs", b'["start", {"uid": "a"}]', 400, "0 runs end in these documents"),
        ("/runs", b'["stop", {"run_start": "a"}]', 400, "have no start"),
        ("/elsewhere", b"{}", 404, "POST to /jobs or /growth or /runs"),
    ],
)
def test_what_is_wrong_is_said(service: Service, path: str, body: bytes, status: int, said: str) -> None:
    found, answer = service.post(path, body)
    assert (found, service.waiting()) == (status, [])
    assert said in answer["error"]
    assert said in str(service.source.state.last_error)


def test_a_request_that_ends_early_is_refused(service: Service) -> None:
    connection = http.client.HTTPConnection(service.host, service.port, timeout=10)
    connection.putrequest("POST", "/jobs")
    connection.putheader("Authorization", f"Bearer {TOKEN}")
    connection.putheader("Content-Length", "100")
    connection.endheaders(b"{}")
    connection.sock.shutdown(1)
    assert connection.getresponse().status == 400
    connection.close()


def lines(uid: str, tmp_path: Path) -> bytes:
    return b"\n".join(json.dumps(each).encode() for each in scan_documents(uid, 3, tmp_path / "frames.h5", 5.0))


def test_the_documents_of_a_run_become_its_job_once(service: Service, tmp_path: Path) -> None:
    status, answer = service.post("/runs", lines("run-a", tmp_path))
    (job,) = service.waiting()
    assert (status, answer) == (200, {"run_uid": "run-a", "jobs": [{"key": job.key}], "known": False})
    assert (job.source.run_uid, job.frame_count) == ("run-a", 16)
    assert service.post("/runs", lines("run-a", tmp_path))[1] == {"run_uid": "run-a", "jobs": [], "known": True}


def test_a_sequence_as_tiled_exports_it_is_taken(service: Service, tmp_path: Path) -> None:
    documents = scan_documents("run-b", 3, tmp_path / "frames.h5", 5.0)
    sequence = "".join("\x1e" + json.dumps({"name": name, "doc": document}) + "\n" for name, document in documents)
    assert len(service.post("/runs", sequence.encode())[1]["jobs"]) == 1


def test_a_run_that_cannot_be_reconstructed_is_kept_with_the_reason(service: Service, tmp_path: Path) -> None:
    documents = [each for each in scan_documents("run-c", 3, tmp_path / "frames.h5", 5.0) if each[0] != "stream_datum"]
    answer = service.post("/runs", b"\n".join(json.dumps(each).encode() for each in documents))[1]
    (refusal,) = service.waiting()
    assert answer["jobs"] == [{"key": refusal.key, "refused": refusal.reason}]


def test_while_the_inbox_cannot_be_written_nothing_is_acknowledged(service: Service, make_job) -> None:
    service.site.inbox.parent.mkdir(exist_ok=True)
    service.site.inbox.write_text("a file in its place")
    assert service.post("/jobs", make_job().to_bytes())[0] == 503
    with pytest.raises(SiteError, match="did not take job"):
        RemoteInbox(service.uri, TOKEN)(service.site, make_job())
    service.site.inbox.unlink()
    assert RemoteInbox(service.uri, TOKEN)(service.site, make_job()) == make_job().key


def test_a_service_that_is_away_is_one_sentence(service: Service, make_job) -> None:
    with pytest.raises(SiteError, match=r"the service at 127\.0\.0\.1 does not answer"):
        RemoteInbox("http://127.0.0.1:9", TOKEN)(service.site, make_job())
    with pytest.raises(SiteError, match="token is missing or wrong"):
        RemoteInbox(service.uri, "another-token-of-16")(service.site, make_job())


def test_silent_clients_do_not_keep_others_away(service: Service, make_job) -> None:
    """However many they are: those that have asked nothing make way."""
    silent = [socket.create_connection((service.host, service.port)) for _ in range(200)]
    begun = time.monotonic()
    assert service.post("/jobs", make_job().to_bytes())[0] == 200
    assert time.monotonic() - begun < http_submit.ASKING_S
    for connection in silent:
        connection.close()


def test_without_file_descriptors_clients_wait_and_nothing_ends(service: Service, make_job, monkeypatch, caplog) -> None:
    asked, accept = [], socket.socket.accept

    def accept_later(self: socket.socket) -> Any:
        if asked.append(1) or len(asked) < 4:
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(self)

    monkeypatch.setattr(accepting, "PAUSE_S", 0.01)
    monkeypatch.setattr(socket.socket, "accept", accept_later)
    assert service.post("/jobs", make_job().to_bytes())[0] == 200
    assert len(asked) == 4
    assert caplog.text.count("a connection cannot be accepted (Too many open files): it waits") == 1


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\n", b"POST /jobs HTTP/1.1\r\nContent-Length: 10\r\n"])
def test_who_does_not_come_to_the_point_is_hung_up_on(service: Service, monkeypatch, said: bytes) -> None:
    """Though it says a little now and then."""
    monkeypatch.setattr(http_submit, "ASKING_S", 0.5)
    with socket.create_connection((service.host, service.port)) as client:
        client.settimeout(0.1)
        client.sendall(said)
        end = time.monotonic() + 20
        while not _is_closed(client):
            assert time.monotonic() < end


def _is_closed(client: socket.socket) -> bool:
    try:
        client.sendall(b"x")
        return client.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_long_body_of_somebody_known_gets_more_time(service: Service) -> None:
    known = {"Authorization": f"Bearer {TOKEN}", "Content-Length": "100000"}
    assert service.source.time_for(known) > service.source.time_for({**known, "Authorization": "Bearer x"}) == http_submit.SERVED_S
    assert service.source.time_for({**known, "Content-Length": "9" * 12}) == http_submit.SERVED_S


def test_without_a_token_or_with_a_short_one_there_is_no_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site.model_validate({"home": tmp_path, "source": [{"kind": "http"}]})
    for token in ("", "short"):
        monkeypatch.setenv("PTYPLUGIN_TOKEN", token)
        with pytest.raises(SiteError, match="at least 16 characters in PTYPLUGIN_TOKEN"):
            Sources(site)
    assert site.source[0].host == "127.0.0.1"  # type: ignore[union-attr]


def test_a_port_in_use_is_said_and_tried_again(service: Service, tmp_path: Path, until) -> None:
    table = {"kind": "http", "port": service.port}
    with Sources(Site.model_validate({"home": tmp_path / "second", "source": [table]})) as second:
        until(lambda: second.states()[0].last_error)
        assert "set another port of this source in the site file" in str(second.states()[0].last_error)
        assert not second.states()[0].connected


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return body.getvalue()


def test_packed_jobs_come_back_the_same_and_nothing_else_does(make_job) -> None:
    job, arrays = with_positions(make_job())
    body, _ = pack(job, arrays)
    found, files = unpack(body)
    assert found == job
    np.testing.assert_array_equal(np.load(io.BytesIO(files["positions.npy"])), arrays["positions.npy"])
    text = job.to_bytes()
    for wrong, said in [
        (text, "names the arrays positions.npy, and none came"),
        (zipped({"job.json": text}), "and none came"),
        (zipped({"positions.npy": b""}), "has no job.json"),
        (zipped({"job.json": text, "positions.npy": b"other"}), "sha256 differs"),
        (zipped({"job.json": text, "../evil.npy": b""}), r"'\.\./evil\.npy'"),
        (zipped({"job.json": text + b" " * 10**6}, zipfile.ZIP_DEFLATED), "compressed"),
        (zipped({"job.json": text, **{f"a{number}.npy": b"" for number in range(30)}}), "too many files"),
    ]:
        with pytest.raises(JobError, match=said):
            unpack(wrong)


def test_the_server_ends_with_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTYPLUGIN_TOKEN", TOKEN)
    stop = threading.Event()
    with Sources(Site.model_validate({"home": tmp_path, "source": [{"kind": "http", "port": 0}]}), stop) as sources:
        stop.set()
    assert not any(thread.is_alive() for thread in sources._threads)
