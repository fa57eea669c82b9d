"""A Tiled server as a facility runs it, in a thread of this process: users with passwords, keys with scopes, runs with access tags."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn
from at_work import until
from tiled.access_control.access_tags import AccessTagsCompiler
from tiled.access_control.scopes import ALL_SCOPES
from tiled.commandline.main import cli_app
from tiled.config import parse_configs
from tiled.server.app import build_app_from_config
from tiled.server.settings import DatabaseSettings

READ = ("read:metadata", "read:data")
#: ``service`` may do everything that its key allows; each visitor sees one proposal.
_VISITORS = {"visitor": "proposal-1", "stranger": "proposal-2"}
_USERS = ("service", *_VISITORS)

_CONFIG = """\
trees:
  - path: /
    tree: catalog
    args: {{uri: {catalog}, writable_storage: {writable}, readable_storage: {readable}, top_level_access_tags: [hall]}}
database: {{uri: {users_in}, init_if_not_exists: true}}
authentication:
  secret_keys: [for-tests-only-0123456789-0123456789]
  providers:
    - provider: toy
      authenticator: tiled.authenticators:DictionaryAuthenticator
      args: {{users_to_passwords: {users}}}
  tiled_admins: [{{provider: toy, id: service}}]
access_control:
  access_policy: tiled.access_control.access_policies:TagBasedAccessPolicy
  args: {{provider: toy, access_tags_parser: "tiled.access_control.access_tags:AccessTagsParser"}}
streaming_cache: {{uri: memory}}
"""


class ManyUsers:
    """The server at ``uri``. Each user's password is the name."""

    def __init__(self, uri: str, database: Path) -> None:
        self.uri, self._database = uri, database
        self._tokens: dict[str, str] = {}

    def key(self, user: str, *scopes: str, expires_in: int | None = None) -> str:
        """A new key of this user, with these scopes."""
        answer = self._ask(user, "POST", json={"scopes": scopes, "expires_in": expires_in})
        return str(answer.json()["secret"])

    def revoke(self, user: str, key: str) -> None:
        """End a key."""
        self._ask(user, "DELETE", params={"first_eight": key[:8]})

    def allow(self, *scopes: str, owner: bool = True) -> None:
        """Say anew what the tags of the proposals allow to the service, everything if nothing is said, and whether it owns them."""
        _define_tags(self._database, scopes, owner)

    def _ask(self, user: str, method: str, **more: object) -> httpx.Response:
        # To read certificates takes longer than all else.
        with httpx.Client(base_url=f"{self.uri}/api/v1/auth", verify=False) as http:
            if user not in self._tokens:
                answer = http.post("/provider/toy/token", data={"username": user, "password": user}).raise_for_status()
                self._tokens[user] = answer.json()["access_token"]
            headers = {"Authorization": f"Bearer {self._tokens[user]}"}
            return http.request(method, "/apikey", headers=headers, **more).raise_for_status()  # type: ignore[arg-type]


def _define_tags(database: Path, scopes: Iterable[str] = (), owner: bool = True) -> None:
    everything = sorted(scope.value for scope in ALL_SCOPES)

    def users(tag: str) -> list[dict[str, object]]:
        allowed = everything if tag == "hall" else list(scopes) or everything
        visitors = [name for name, proposal in _VISITORS.items() if tag in ("hall", proposal)]
        return [{"name": "service", "scopes": allowed}, *({"name": name, "scopes": list(READ)} for name in visitors)]

    tags = ("hall", *_VISITORS.values())
    owners = {tag: {"users": [{"name": "service"}]} for tag in tags if owner or tag == "hall"}
    told = {"tags": {tag: {"users": users(tag)} for tag in tags}, "tag_owners": owners}

    async def write() -> None:
        compiler = AccessTagsCompiler(everything, told, DatabaseSettings(uri=f"sqlite+aiosqlite:///{database}"), lambda group: [])
        compiler.load_tag_config()
        await compiler.compile()
        await compiler._engine.dispose()

    asyncio.run(write())


@contextmanager
def many_users(folder: Path, readable: Iterable[Path]) -> Iterator[ManyUsers]:
    """A server whose catalog lies in ``folder``."""
    (folder / "data").mkdir(parents=True)
    database, config = folder / "catalog.db", folder / "config.yml"
    said = {
        "catalog": f"sqlite:///{database}",
        "writable": [f"file://localhost{folder / 'data'}", f"duckdb:///{folder / 'tables.duckdb'}"],
        "readable": [str(path) for path in readable],
        "users_in": f"sqlite:///{folder / 'users.db'}",
        "users": {name: name for name in _USERS},
    }
    config.write_text(_CONFIG.format(**{name: json.dumps(value) for name, value in said.items()}))
    with warnings.catch_warnings():
        # Alembic's, about Tiled's way with it.
        warnings.simplefilter("ignore", DeprecationWarning)
        cli_app(["catalog", "init", said["catalog"]], standalone_mode=False)
    _define_tags(database)
    server = uvicorn.Server(uvicorn.Config(build_app_from_config(parse_configs(config)), access_log=False, log_level="warning"))
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive(), 120.0)
            yield ManyUsers(f"http://127.0.0.1:{bound.getsockname()[1]}", database)
        finally:
            server.should_exit = True
            thread.join()
