"""What the pages say in tables is what the code has: limits with their values, commands, options and events."""

import importlib
import re
import typing
from pathlib import Path

import pytest
from tidings.node.mirror import MirrorEvent

ROOT = Path(__file__).parents[2]
CLI = (ROOT / "docs" / "cli.md").read_text()
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}
NUMBER = re.compile(r"(\d[\d,]*(?:\.\d+)?)(?: (KiB|MiB))?")
LIMIT = re.compile(r"^\|[^|]+\|(?P<value>[^|]+)\| (?P<names>`\w+\.[\w.]+`(?:, `[\w.]+`)*) \|$", re.MULTILINE)


def limits_of(page, packages):
    for row in LIMIT.finditer((ROOT / "docs" / page).read_text()):
        first, *others = re.findall(r"`([\w.]+)`", row["names"])
        module, _, name = first.partition(".")
        numbers = {float(n.replace(",", "")) * UNITS.get(unit, 1) for n, unit in NUMBER.findall(row["value"])}
        yield from (pytest.param(packages, module, each, numbers, id=f"{module}.{each}") for each in [name, *others])


@pytest.mark.parametrize(
    ("packages", "module", "name", "numbers"),
    [
        *limits_of("transport.md", "transport"),
        *limits_of("relay.md", "transport"),
        *limits_of("reach.md", "transport"),
        *limits_of("gossip.md", ("gossip", "node")),
        *limits_of("documents.md", "docs_sync"),
        *limits_of("protocol.md", "docs_sync"),
        *limits_of("access.md", "docs_sync"),
    ],
)
def test_a_limit_is_what_the_page_says(packages, module, name, numbers):
    packages = [packages] if isinstance(packages, str) else packages
    (file,) = (file for package in packages for file in (ROOT / package).rglob(f"{module}.py"))
    value = importlib.import_module(".".join(("tidings", *file.relative_to(ROOT).with_suffix("").parts)))
    for part in name.split("."):
        value = getattr(value, part)
        value = value() if isinstance(value, type) else value
    assert value in numbers


def commands(group, above=()):
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*above, name))
        else:
            yield (*above, name), command


def test_every_command_and_option_is_described(program):
    for words, command in [((), program), *commands(program)]:
        assert " ".join(words) in CLI
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("-") and option != "--help":
                    assert option in CLI, (words, option)


def test_every_event_is_described():
    kinds = set(typing.get_args(typing.get_type_hints(MirrorEvent)["kind"]))
    for source in (ROOT / "node").glob("*.py"):
        kinds |= set(re.findall(r'\.event\(\s*"([\w-]+)"', source.read_text()))
    assert {"started", "in-sync", "message"} <= kinds
    assert {kind for kind in kinds if f"`{kind}`" not in CLI} == set()
