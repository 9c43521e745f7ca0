"""What `pip install` brings is whole: the wheel works outside the checkout."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel's files, as an installation lays them down."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("no hatchling here: pip install hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(installed):
    inside = {p.relative_to(ROOT) for p in (ROOT / "raygrad").rglob("*") if p.is_file()}
    wanted = {str(p) for p in inside if "__pycache__" not in p.parts}
    found = {str(p.relative_to(installed)) for p in installed.rglob("*") if p.is_file()}
    assert wanted - found == set()
    assert {name.split("/")[0].split("-")[0] for name in found} == {"raygrad"}


def test_an_installed_raygrad_runs_outside_the_checkout(installed, tmp_path):
    """The command, and the files that the report reads from the package."""
    code = (
        "import pathlib, raygrad, raygrad.report.page; from importlib.resources import files; "
        "assets = files('raygrad.report') / 'assets'; "
        "assert any(one.name.endswith('.css') for one in assets.iterdir()); "
        "from raygrad.cli import main; import sys; print(raygrad.__file__); "
        "sys.exit(main(['select', '--list']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(installed) in done.stdout, "it is the installed one"
    assert "max_gradient" in done.stdout
