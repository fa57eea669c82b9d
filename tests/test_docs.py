"""What the documents tell to type is valid: links, commands with their options, Python, TOML."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel, TypeAdapter

from ptyplugin.cli.app import app
from ptyplugin.model import Profile, Site, load_site
from ptyplugin.solvers.verbs import Verbs

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md"), ROOT / "tests" / "README.md"])
EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*") if path.is_file() and path.suffix != ".bob")
#: Where a command may begin in a line; after two spaces an explanation follows.
COMMAND = re.compile(r"(?:^|[;&|!(]|\bdo\b)\s*(?:\S*/bin/)?ptyplugin ((?:\S| (?! ))+)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
#: A file of the checkout; ``shared`` lies beside it.
FILE = re.compile(r"`(?!shared/)((?:\w+/)+\w+\.(?:py|toml|service|bob|md))`")
TYPED = re.compile(r"^In \[\d+\]: (.*)$")


@dataclass(frozen=True)
class Block:
    """Lines of code: kind is what stands behind the fence, nothing for an indented block; line is where it begins."""

    kind: str
    line: int
    text: str


@cache
def blocks_of(page: Path) -> tuple[Block, ...]:
    return tuple(_blocks(page.read_text(encoding="utf-8").splitlines()))


def _blocks(lines: list[str]) -> Iterator[Block]:
    kind: str | None = None
    begin, held = 0, list[str]()
    for number, line in enumerate([*lines, ""], 1):
        if line.strip().startswith("```"):
            if held:
                yield Block(kind or "", begin, dedent("\n".join(held)))
            kind, begin, held = (line.strip()[3:] or "text" if kind is None else None), number + 1, []
        elif kind is not None or line.startswith("    "):
            begin, held = (begin if held else number), [*held, line]
        elif held and line.strip():
            yield Block("", begin, dedent("\n".join(held)))
            held = []
        elif held:
            held.append("")
    if held:
        yield Block("", begin, dedent("\n".join(held)))


def names(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


@cache
def anchors_of(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", names(PAGES))
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{link} is not there"
        assert not anchor or anchor in anchors_of(there), f"{link}: {there.name} has no such heading"


@pytest.mark.parametrize("page", names(PAGES))
def test_files_that_are_named_are_there(page: Path) -> None:
    for name in FILE.findall(page.read_text(encoding="utf-8")):
        assert any((folder / name).exists() for folder in (ROOT, ROOT / "ptyplugin", page.parent)), f"there is no {name}"


def commands_in(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        typed = TYPED.match(line)
        for command in COMMAND.findall(typed[1] if typed else line):
            yield list(words_of(command))


def words_of(command: str) -> Iterator[str]:
    """Up to the next sign of the shell's."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    for word in lexer:
        if word[0] in "();<>|&[" or word == "\\":
            return
        yield word


def check_command(words: list[str], is_whole: bool = True) -> None:
    """Parse them as the program would, without running it. What is not whole only names a command and its options."""
    found: Any = typer.main.get_command(app)
    try:
        context = found.make_context("ptyplugin", [*words])
        while hasattr(found, "resolve_command"):
            _, found, rest = found.resolve_command(context, context._protected_args + context.args)
            context = found.make_context(found.name, rest, parent=context)
    except Exception as error:
        # Typer has brought its own click with it since some version: their classes are known by what they are called.
        if type(error).__name__ in ("Exit", "NoArgsIsHelpError"):
            return
        said = error.format_message() if hasattr(error, "format_message") else f"{type(error).__name__}: {error}"
        if is_whole or not ("Missing" in said or "requires an argument" in said):
            raise AssertionError(f"ptyplugin {shlex.join(words)}: {said}") from error


@pytest.mark.parametrize("page", names([*PAGES, *EXAMPLES]))
def test_commands_have_these_options(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        for named in re.findall(r"`(ptyplugin [^`\n]+)`", text):
            for words in commands_in(named):
                check_command(words, is_whole=False)
        text = "\n".join(block.text for block in blocks_of(page) if block.kind != "python")
    else:
        text = re.sub(r"^(#|\w+=)\s*", "", text, flags=re.MULTILINE)
    for words in commands_in(text):
        check_command(words)


def test_a_command_that_is_wrong_is_found() -> None:
    """Else the test above could not fail."""
    text = 'In [1]: !ptyplugin jobs list --site x   of all\nsudo ptyplugin\n. a; ptyplugin reconstruct "a (b)" > c'
    assert list(commands_in(text)) == [["jobs", "list", "--site", "x"], ["reconstruct", "a (b)"]]
    for wrong in ("jobs list --sight x", "jobs lists", "serve --epics", "demo --frames many", "reconstruct --ranks 2"):
        with pytest.raises(AssertionError, match=f"ptyplugin {wrong}"):
            check_command(wrong.split())


@pytest.mark.parametrize("page", names(PAGES))
def test_python_compiles_and_finds_what_it_imports(page: Path) -> None:
    for block in blocks_of(page):
        if block.kind == "python":
            tree = ast.parse(block.text, f"{page.name}, line {block.line}")
            compile(tree, page.name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            check_imports(tree, page, block.line)
        for line in block.text.splitlines():
            typed = TYPED.match(line)
            if typed and typed[1][0] not in "!%":
                compile(typed[1], f"{page.name}: {line}", "exec")


def check_imports(tree: ast.Module, page: Path, line: int) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ptyplugin"):
            missing = [alias.name for alias in node.names if not is_in(str(node.module), alias.name)]
            assert not missing, f"{page.name}, line {line + node.lineno - 1}: {node.module} has no {missing}"


def is_in(module: str, name: str) -> bool:
    if hasattr(importlib.import_module(module), name):
        return True
    return importlib.util.find_spec(f"{module}.{name}") is not None


def tables_in(page: Path) -> Iterator[tuple[int, str]]:
    for block in blocks_of(page):
        if block.kind == "toml" or (not block.kind and block.text.startswith("[[")):
            yield block.line, block.text


@pytest.mark.parametrize("page", names(PAGES))
def test_toml_is_of_a_site_or_a_profile(page: Path) -> None:
    for line, text in tables_in(page):
        table = tomllib.loads(text)
        where = f"{page.name}, line {line}"
        if {"name", "detector"} <= table.keys():
            Profile.model_validate(table)
        elif table.keys() <= Site.model_fields.keys():
            Site.model_validate(table)
        elif table.keys() != {"project"}:  # of a package's pyproject.toml
            check_part_of_profile(table, where)


def check_part_of_profile(table: dict[str, object], where: str) -> None:
    """A page may show single tables of a profile."""
    assert table.keys() <= Profile.model_fields.keys(), f"{where}: keys of neither a site nor a profile: {sorted(table)}"
    for key, value in table.items():
        TypeAdapter(Profile.model_fields[key].annotation).validate_python(value)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def keys_of(model: type[BaseModel]) -> Iterator[str]:
    """Of a table and all tables in it."""
    for name, field in model.model_fields.items():
        yield name
        for inner in models_in(field.annotation):
            yield from keys_of(inner)


@pytest.mark.parametrize(("page", "model"), [("reference/site.md", Site), ("how-to/write-a-profile.md", Profile)])
def test_every_key_of_a_file_is_explained(page: str, model: type[BaseModel]) -> None:
    """In code, between backticks or as TOML: a word of a sentence explains no key."""
    file = ROOT / "docs" / page
    shown = [*re.findall(r"`([^`\n]+)`", file.read_text(encoding="utf-8")), *(text for _, text in tables_in(file))]
    words = set(re.findall(r"\w+", " ".join(shown)))
    assert sorted(set(keys_of(model)) - words) == []


def test_every_command_is_explained() -> None:
    told = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [command for command in commands_of(typer.main.get_command(app)) if command not in told] == []


def commands_of(command: Any, name: str = "ptyplugin") -> Iterator[str]:
    inner = getattr(command, "commands", {})
    for word, each in inner.items():
        yield from commands_of(each, f"{name} {word}")
    if not inner:
        yield name


def test_every_verb_has_its_line() -> None:
    page = (ROOT / "docs" / "explanations" / "decisions" / "0002-verbs.md").read_text(encoding="utf-8")
    lines = "".join(re.findall(r"^\|(.*?) \|", page, re.MULTILINE))
    told, rules = set(re.findall(r"(\w+)\(", lines)), {"batch_frames", "finish", "use_less_memory"}
    reserved = {"coefficient_sums", "mix_probe", "to_next_slice", "transmit"}
    assert told - reserved | rules == {name for name, verb in vars(Verbs).items() if callable(verb) and not name.startswith("_")}


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in LINK.findall(index.read_text(encoding="utf-8"))}
    pages = {page for page in PAGES if page.is_relative_to(index.parent)} - {index}
    assert [page.name for page in pages if not linked & {page, page.parent}] == []


def test_example_sites_are_sites() -> None:
    for path in EXAMPLES:
        if path.name == "site.toml":
            load_site(path)


def test_every_benchmark_is_explained() -> None:
    parts = re.findall(r'^    "(\w+)": \w+\.run,$', (ROOT / "benchmarks" / "__main__.py").read_text(encoding="utf-8"), re.MULTILINE)
    explained = re.findall(r"^\| `(\w+)` \|", (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert parts
    assert sorted(parts) == sorted(explained)
