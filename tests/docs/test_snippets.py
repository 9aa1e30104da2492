"""The documentation is run.

- A ```` ```python ```` block of ``README.md`` or ``docs/*.md`` is a program of its own: it runs in an empty directory,
  with ``await`` allowed at the top level (as in ``python -m asyncio``). A ```` ```text ```` block right behind it is
  exactly what it prints. ```` ```python no-run ```` is only compiled.
- In a ```` ```console ```` block each ``$ tidings ...`` must be a call that the command line accepts, and each
  ``$ make ...`` a target. ```` ```console run ```` is run in a shell, and ``...`` in its output stands for anything.
- Each line of a ```` ```json ```` block is a JSON value. Links within the documentation lead somewhere.

Nothing leaves the machine: where a snippet does not say ``bind``, it is loopback instead of every interface.
"""

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import pytest
from tidings import Endpoint, Node

ROOT = Path(__file__).parents[2]
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if page.exists()]
LOOPBACK = "127.0.0.1:0"
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)#\s]+)?(#(?P<heading>[^)\s]+))?\)")


class Block(NamedTuple):
    page: Path
    line: int
    info: str
    text: str
    output: str | None
    """The text block right behind."""


def blocks_of(page):
    source = page.read_text()
    found = list(FENCE.finditer(source))
    for fence, following in zip_longest(found, found[1:]):
        is_output = following and following["info"] == "text" and not source[fence.end() : following.start()].strip()
        line = source.count("\n", 0, fence.start("text")) + 1
        yield Block(page, line, fence["info"].strip(), fence["text"], following["text"] if is_output else None)


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def every(*infos):
    chosen = [block for block in BLOCKS if block.info in infos]
    return pytest.mark.parametrize("block", chosen, ids=[f"{block.page.name}:{block.line}" for block in chosen])


def compiled(block):
    source = "\n" * (block.line - 1) + block.text  # so that a traceback names the line of the page
    return compile(source, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


async def awaited(code, names):
    await eval(code, names)


@every("python", "python no-run")
def test_python_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for opener in (Endpoint.bind, Node.open):
        monkeypatch.setitem(opener.__func__.__kwdefaults__, "bind", (LOOPBACK,))
    code = compiled(block)
    if block.info == "python no-run":
        return
    names, printed = {"__name__": "__main__"}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        if code.co_flags & inspect.CO_COROUTINE:
            asyncio.run(awaited(code, names))
        else:
            exec(code, names)
    if block.output is not None:
        assert printed.getvalue() == block.output


@every("console", "console run")
def test_commands_exist(block, program):
    for line in block.text.replace("\\\n", "").splitlines():
        if not line.startswith("$ "):
            continue
        words = shlex.split(line.removeprefix("$ "), comments=True)
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words.pop(0)
        if words[:1] == ["tidings"]:
            check_call(program, words[1:])
        elif words[:1] == ["make"]:
            assert set(words[1:]) <= make_targets(), line


def check_call(command, words):
    """Parse a call as the program would, without running it."""
    context = None
    while True:
        context = command.make_context(command.name, list(words), parent=context)
        if not hasattr(command, "commands"):
            return
        words = [*context._protected_args, *context.args]
        _, command, words = command.resolve_command(context, words)


def make_targets():
    return set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@every("console run")
def test_console_prints_what_it_says(block, tmp_path):
    script = f'tidings() {{ "{sys.executable}" -m tidings --bind {LOOPBACK} "$@"; }}\n'
    expected = ""
    for line in block.text.splitlines(keepends=True):
        if line.startswith("$ "):
            script += line.removeprefix("$ ")
        else:
            expected += line
    environment = {**os.environ, "TIDINGS_NODE": str(tmp_path / "node"), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        ["bash", "-euc", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    same = doctest.OutputChecker().check_output(expected, done.stdout, doctest.ELLIPSIS)
    assert same, done.stdout


@every("json")
def test_json_is_json(block):
    for line in block.text.splitlines():
        json.loads(line)


@every("toml")
def test_toml_is_toml(block):
    tomllib.loads(block.text)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page):
    source = FENCE.sub("", page.read_text())
    for link in LINK.finditer(source):
        target, heading = link["target"], link["heading"]
        if target and "://" in target:
            continue
        place = page if not target else page.parent / target
        assert place.exists(), link[0]
        if heading:
            assert heading in headings(place), link[0]


def headings(page):
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_fence_is_of_a_kind_that_is_checked():
    known = {"python", "python no-run", "console", "console run", "json", "text", "toml", ""}
    assert {block.info for block in BLOCKS} <= known
