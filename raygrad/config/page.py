"""The page of all fields, made from what they declare: ``python -m raygrad.config.page``."""

import ast
import dataclasses
import inspect
import textwrap
from typing import Any

from raygrad.config.data import DataConfig
from raygrad.config.declaring import declared
from raygrad.config.scoring import ScoreConfig
from raygrad.config.selecting import SelectConfig
from raygrad.config.sweeping import SweepConfig
from raygrad.config.training import TrainConfig

SECTIONS: dict[str, Any] = {
    "data": DataConfig,
    "train": TrainConfig,
    "score": ScoreConfig,
    "select": SelectConfig,
    "sweep": SweepConfig,
}
"""The sections of a study's configuration, by name."""

_HEAD = """# Every field of the configuration

Made by `python -m raygrad.config.page` from the fields themselves; a test compares it with them.
A field is a flag: `--epochs` of `raygrad train`, `--train.epochs` of `raygrad run` and of a job.

- **results**: it decides what comes out, and is part of a stage's identity.
  **execution**: it says how the work is done.
- What becomes of a change of it in a run where its stage is complete: **refused** by name, with
  the choices (`--redo` does the stage again); **ignored** with a line; or **acted on**: more is
  done, and nothing that is there is lost.
"""


def page() -> str:
    """Returns the page, Markdown."""
    parts = [_HEAD]
    for name, section in SECTIONS.items():
        texts = field_texts(section)
        parts += [f"## {name}", "", str(section.__doc__), ""]
        parts += ["| field | default | identity | a change is | |", "|---|---|---|---|---|"]
        for field in dataclasses.fields(section):
            says = declared(section, field)
            cells = [f"`{field.name}`", f"`{_default(field)}`", says.identity, says.on_change]
            text = texts.get(field.name, "").replace("|", "\\\\|")
            parts.append(f"| {' | '.join(cells)} | {text} |")
        parts.append("")
    return "\n".join(parts)


def field_texts(section: Any) -> dict[str, str]:
    """Returns the text below each field of a section, on one line."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found


def _default(field: dataclasses.Field[Any]) -> str:
    made = field.default_factory
    value = field.default if made is dataclasses.MISSING else made()
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


if __name__ == "__main__":
    print(page(), end="")
