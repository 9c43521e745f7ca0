"""The house that one would live in, as limits: README, functions, docstrings, tests, reasons."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "raygrad").rglob("*.py"))
PYTHON = [path for top in ("raygrad", "jobs", "benchmarks") for path in (ROOT / top).rglob("*.py")]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def functions(path):
    """Yields every function of a file with its dotted name and whether all of that is public."""

    def walk(node, prefix, public):
        for one in ast.iter_child_nodes(node):
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{one.name}"
                seen = public and not one.name.startswith("_")
                yield one, name, seen
                if isinstance(one, ast.ClassDef):
                    yield from walk(one, f"{name}.", seen)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), "", True)


def code_lines(path):
    """Counts lines that hold code: neither blank, nor comment, nor docstring."""
    text = path.read_text(encoding="utf-8")
    stripped = [line.strip() for line in text.splitlines()]
    lines = {at for at, line in enumerate(stripped, 1) if line and not line.startswith("#")}
    described = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    documented = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant | ast.JoinedStr) and node.end_lineno > node.lineno:
            lines.update(range(node.lineno, node.end_lineno + 1))  # text is code, whatever it says
        if isinstance(node, described) and ast.get_docstring(node) is not None:
            documented.append(node.body[0])
    for node in documented:
        lines -= set(range(node.lineno, node.end_lineno + 1))
    return len(lines)


def test_readme_is_read_to_its_end():
    """At most 150 lines and 1,300 words; a table's bars and a line of code count as words do."""
    assert len(README.splitlines()) <= 150
    assert len(README.split()) <= 1300


def test_every_link_of_the_documents_leads_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("benchmarks/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_function_is_longer_than_a_screen_and_no_public_one_lacks_a_docstring(path):
    for node, name, public in functions(path):
        if not isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno < 60, f"{name} has over 60 lines"
        assert not public or ast.get_docstring(node), f"{name} has no docstring"


def test_what_the_type_checker_is_told_to_ignore_has_its_reason():
    lacking = [
        f"{path.relative_to(ROOT)}:{at}"
        for path in PYTHON
        for at, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "type: ignore" in line and not re.search(r"type: ignore\[[a-z, -]+\].*  # \w+", line)
    ]
    assert lacking == []


def test_tests_are_at_least_seven_lines_for_ten_of_the_source():
    tests = sum(code_lines(path) for path in (ROOT / "tests").rglob("*.py"))
    assert tests >= 0.7 * sum(code_lines(path) for path in SOURCES)
