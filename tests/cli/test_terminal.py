"""What a terminal shows and where other libraries' words go."""

import io
import logging
import os
import re
import subprocess
import sys
import threading
import warnings

import pytest

from raygrad import pipeline
from raygrad.cli import command
from raygrad.cli.noise import noise_kept
from raygrad.cli.terminal import TerminalHandler, shown_lines
from raygrad.errors import ConfigError, RaygradError
from raygrad.progress import Progress
from raygrad.runs.layout import RunLayout
from raygrad.storage import files
from tests.cases import make_tiny_config

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Screen(io.StringIO):
    """A terminal as far as it can tell."""

    def isatty(self):
        return True


def told(stream, monkeypatch, term="xterm"):
    """A stage of three steps and a warning in the midst of it, shown on a stream."""
    monkeypatch.setenv("TERM", term)
    log, handler = logging.getLogger("raygrad"), TerminalHandler(stream)
    log.addHandler(handler)
    level, log.level = log.level, logging.INFO
    try:
        progress = Progress("score", 3, "shards", interval_s=0.0)
        progress.add(1, "2 actors")
        log.warning("score: own-001 failed [broken]")
        progress.add(1)
        progress.add(1)
    finally:
        log.removeHandler(handler)
        handler.close()
        log.level = level
    return stream.getvalue()


def test_a_terminal_sees_one_bar_redrawn_and_the_lines_above_it(monkeypatch):
    shown = told(Screen(), monkeypatch)
    assert "\x1b[" in shown
    text = ESCAPES.sub("", shown)
    assert "1/3" in text
    assert "2 actors" in text
    assert "score: own-001 failed [broken]\n" in text, "not taken for markup"
    assert "score: 1 of 3" not in text, "the bar stands for the line"
    assert re.search(r"score: 3 of 3 shards, .* done in", text), "the end is a line that stays"
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h"), "the cursor is given back"


@pytest.mark.parametrize(("stream", "term"), [(io.StringIO, "xterm"), (Screen, "dumb")])
def test_elsewhere_there_are_plain_lines(stream, term, monkeypatch):
    lines = told(stream(), monkeypatch, term).splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "score: 1 of 3 shards",
        "score: own-001 failed [broken]",
        "score: 2 of 3 shards",
        "score: 3 of 3 shards",
    ]


def make_noise():
    """All the ways in which other libraries speak."""
    logging.getLogger("a.library").warning("from a logger")
    warnings.warn("from a warning", UserWarning, stacklevel=1)
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    thread.join()
    print("the result")
    logging.getLogger("raygrad").warning("a line of raygrad")


@pytest.fixture
def run(tmp_path):
    """A run folder that is there."""
    config = make_tiny_config(tmp_path)
    pipeline.bind(config)
    return config.run


def kept(run):
    return [files.read_bytes(url).decode() for url in files.list_files(RunLayout(run).logs, ".log")]


def test_the_words_of_others_go_to_a_file_in_the_run_folder(run, capsys):
    with shown_lines(), noise_kept(run):
        make_noise()
    said = capsys.readouterr()
    assert said.out == "the result\n"
    assert said.err == "a line of raygrad\n"
    (log,) = kept(run)
    for words in ("WARNING a.library: from a logger", "from a warning", "from a thread"):
        assert words in log
    assert "a line of raygrad" not in log


def test_a_run_on_s3_has_its_log_there(tmp_path, s3_url, capsys):
    files.write_bytes(RunLayout(s3_url).config, b"{}")
    with noise_kept(s3_url):
        make_noise()
    assert "from a thread" in kept(s3_url)[0]


def test_compiled_code_and_child_processes_are_kept_off_the_terminal_too(run):
    """They write to the descriptor itself; afterwards it is the terminal's again."""
    code = (
        "import os, subprocess, sys; from raygrad.cli.noise import noise_kept\n"
        "from raygrad.cli.terminal import shown_lines; import logging\n"
        "with shown_lines(), noise_kept(sys.argv[1]):\n"
        "    os.write(2, b'from compiled code\\n')\n"
        "    subprocess.run(['sh', '-c', 'echo from a child >&2'])\n"
        "    logging.getLogger('raygrad').warning('a line of raygrad')\n"
        "os.write(2, b'afterwards\\n')"
    )
    ran = subprocess.run([sys.executable, "-c", code, run], capture_output=True, text=True)
    assert ran.stderr.splitlines() == ["a line of raygrad", "afterwards"]
    assert kept(run) == ["from compiled code\nfrom a child\n"]


def test_a_command_that_made_no_noise_leaves_no_file(run):
    with noise_kept(run):
        print("nothing of note")
    assert kept(run) == []


def test_an_error_tells_where_the_words_of_others_are(run, capsys):
    def execute():
        make_noise()
        raise RaygradError("broke")

    with pytest.raises(RaygradError), shown_lines(), noise_kept(run):
        execute()
    said = capsys.readouterr().err
    assert re.search(r"what other libraries said of it: \S+/run/logs/\S+\.log", said)


def test_a_refused_first_command_makes_no_run_folder(tmp_path):
    def execute():
        make_noise()
        raise ConfigError("wrong")

    with pytest.raises(ConfigError), noise_kept(str(tmp_path / "run")):
        execute()
    assert not os.path.exists(tmp_path / "run")


@pytest.mark.parametrize(
    "args",
    [
        ["select", "RUN", "--method"],
        ["run", "--run", "RUN", "--train.epochs", "0"],
        ["train", "--run", "RUN", "--momentum", "1.5"],
    ],
)
def test_a_section_that_refuses_its_values_is_one_line_without_the_parsers_own_names(
    args, run, capsys
):
    assert command.main([run if arg == "RUN" else arg for arg in args]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"raygrad: \w+ must .*, got .*\n", said)
    assert "tyro" not in said
