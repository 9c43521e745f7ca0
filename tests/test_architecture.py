"""The architecture is a test: floors, names and sizes are as the design draws them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "raygrad").rglob("*.py"))


def test_imports_run_down_the_floors():
    """The import contracts of pyproject.toml hold."""
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_ray_is_imported_in_the_engine_only(path):
    """No file outside raygrad/engine/ imports Ray, not even inside a function."""
    if "engine" in path.parts:
        return
    imported = {
        name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [])
        + [alias.name for alias in getattr(node, "names", []) if isinstance(node, ast.Import)]
    }
    assert not {name for name in imported if name and name.split(".")[0] == "ray"}


def test_no_file_outgrows_one_concept():
    """No source file is longer than 400 lines."""
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_jobs_are_configuration_only():
    """No job is longer than 80 lines."""
    jobs = (ROOT / "jobs").glob("*.py")
    lengths = {path.name: len(path.read_text().splitlines()) for path in jobs}
    assert {name: n for name, n in lengths.items() if n > 80} == {}


def test_no_folder_shadows_a_package_and_no_file_is_a_drawer():
    """No folder is named ray, math or io; no file is named utils or common."""
    names = {path.name for folder in ("raygrad", "tests") for path in (ROOT / folder).rglob("*")}
    assert names.isdisjoint({"ray", "math", "io", "utils.py", "common.py"})


def test_importing_scoring_selection_or_the_report_starts_nothing_heavy():
    """Who selects or reports does not pay for torch and Ray, who scores in a loop not for Ray."""
    code = (
        "import sys, raygrad.selection, raygrad.report.report, raygrad.pipeline.stored; "
        "import raygrad.cli.command; assert not {'torch', 'ray'} & set(sys.modules); "
        "import raygrad.scoring; assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
