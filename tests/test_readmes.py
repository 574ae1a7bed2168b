"""What the READMEs name is there: files, sections, commands with their options, settings."""

import argparse
import importlib
import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from slam.config import SlamConfig, load_config
from slam.export.exporting import TARGETS

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("slam", "apps", "configs", "tools", "tests")
READMES = [ROOT / "README.md", *sorted(page for name in FOLDERS for page in (ROOT / name).rglob("*.md"))]
PROGRAMS = dict(re.findall(r'^(v2d-\w+) = "([\w.]+):main"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
OPTION = re.compile(r"--[a-z][a-z0-9-]*")
COMMAND = re.compile(rf"(?:^|\s)({'|'.join(PROGRAMS)})(?=\s|$)(.*)")
TOOL = re.compile(r"\b(tools/[\w/]+\.(?:py|sh))\b(.*)")


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def each_readme(function):
    return pytest.mark.parametrize("page", READMES, ids=map(named, READMES))(function)


def sections(page: Path) -> set[str]:
    """The anchors of a page's headings, as the sites that show it make them."""
    titles = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def pieces_of_code(text: str) -> list[str]:
    """Lines of shell blocks, those that go on joined, and the code within sentences; without comments."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", without_code(text))]
    return [re.sub(r"(^|\s)#.*", "", piece) for piece in lines + spans]


def calls(pattern: re.Pattern[str], text: str) -> list[tuple[str, str]]:
    """Programs and what follows each, up to the end of its command."""
    parts = [part for piece in pieces_of_code(text) for part in re.split(r"&&|;|\|(?=\s)", piece)]
    return [(found[1], found[2]) for part in parts if (found := pattern.search(part))]


def own_calls(text: str) -> list[tuple[str, str]]:
    """Programs and what each gets; what follows -- is for another."""
    parts = [(program, *rest.split(" -- ", 1)) for program, rest in calls(COMMAND, text)]
    handed_on = [("v2d-slam", rest) for _, _, *others in parts for rest in others]
    return [(program, own) for program, own, *_ in parts] + handed_on


def options_of(program: str) -> set[str]:
    parser: argparse.ArgumentParser = importlib.import_module(PROGRAMS[program]).build_parser()
    return {"--help", *OPTION.findall(parser.format_usage())}


@each_readme
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text()))
    missing = []
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page if not name else (page.parent / name).resolve()
        if not file.exists() or (anchor and anchor not in sections(file)):
            missing.append(target)
    assert missing == []


@each_readme
def test_options_of_programs_exist(page):
    unknown = [
        f"{program} {option}"
        for program, rest in own_calls(page.read_text())
        for option in OPTION.findall(rest)
        if option not in options_of(program)
    ]
    assert unknown == []


@each_readme
def test_tools_and_their_options_exist(page):
    unknown = []
    for name, rest in calls(TOOL, page.read_text()):
        if not (ROOT / name).is_file():
            unknown.append(name)
        elif name.endswith(".py"):  # a script of the shell hands its options on
            source = (ROOT / name).read_text()
            unknown += [f"{name} {o}" for o in OPTION.findall(rest) if o != "--help" and f'"{o}"' not in source]
    assert unknown == []


@each_readme
def test_options_that_stand_alone_are_those_of_a_program(page):
    known = set().union(*map(options_of, PROGRAMS))
    alone = [
        option for piece in pieces_of_code(page.read_text()) for option in re.findall(r"^--[a-z][a-z0-9-]*", piece)
    ]
    assert [option for option in alone if option not in known] == []


@each_readme
def test_settings_are_read(page):
    for program, rest in own_calls(page.read_text()):
        words = shlex.split(rest)
        if program == "v2d-slam":
            load_config(SlamConfig, overrides=[value for name, value in pairwise(words) if name == "--set"])


def test_every_program_has_a_section():
    titles = re.findall(r"^## (.+)$", (ROOT / "apps" / "README.md").read_text(), re.MULTILINE)
    assert [program for program in PROGRAMS if not any(program in title for title in titles)] == []


def test_every_tool_is_listed():
    text = (ROOT / "tools" / "README.md").read_text()
    tools = [path.relative_to(ROOT / "tools") for path in (ROOT / "tools").rglob("*") if path.suffix in (".py", ".sh")]
    assert len(tools) > 20
    assert sorted(str(tool) for tool in tools if f"`{tool}`" not in text) == []


def test_every_target_of_an_export_is_listed():
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "apps" / "README.md").read_text(), re.MULTILINE)
    assert set(listed) == set(TARGETS)


def test_the_first_screens_stay_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_unknown_options_are_found():
    text = (
        "`v2d-view --webb` and `pip install 'v2d-slam[web]'`\n```sh\nv2d-slam --demo \\\n    --sett a=1  # --no\n```\n"
    )
    named_options = [(program, OPTION.findall(rest)) for program, rest in calls(COMMAND, text)]
    assert named_options == [("v2d-slam", ["--demo", "--sett"]), ("v2d-view", ["--webb"])]
    handed_on = own_calls("`v2d-batch DIR --out OUT -- --fsp 3`")
    assert handed_on == [("v2d-batch", " DIR --out OUT"), ("v2d-slam", "--fsp 3")]
    assert "--demo" in options_of("v2d-slam") and "--sett" not in options_of("v2d-slam")
