"""A JSON beside each page of records/ that was written before benchmarks wrote one themselves.

    python benchmarks/record_pages.py            # writes what is missing
    python benchmarks/record_pages.py --check    # fails where a page and its JSON differ

It holds what can still be known: the page's commands, its tables cell by cell, and the CSV files
beside it. Repetitions that a page gives as a median and a range are not to be had again.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parent / "records"
LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def page_content(page: Path) -> dict[str, Any]:
    """Returns what a page says: title, date, machine, commands, tables, and the files beside it."""
    lines = page.read_text(encoding="utf-8").splitlines()
    text = " ".join(lines)
    machine = re.search(r"\d cores .*?(?=\.\s|$)", text)
    return {
        "from_page": page.name,
        "kept": "what the page says; single repetitions only where its tables or files hold them",
        "title": lines[0].removeprefix("# "),
        "date": page.name[:10],
        "machine": machine.group(0).strip() if machine else None,
        "commands": list(_commands(lines)),
        "tables": list(_tables(lines)),
        "files": sorted(
            str(one.relative_to(RECORDS)) for one in (RECORDS / page.stem).rglob("*.csv")
        ),
    }


def _commands(lines: list[str]) -> Iterator[str]:
    for line in lines:
        inside = re.findall(r"`((?:OMP_NUM_THREADS=1 )?(?:python|raygrad) [^`]*)`", line)
        yield from inside
        if not inside and re.match(r" +(OMP_NUM_THREADS=1 )?(python|raygrad) ", line):
            yield line.strip().removesuffix("\\").strip()


def _tables(lines: list[str]) -> Iterator[dict[str, Any]]:
    heading = ""
    at = 0
    while at < len(lines):
        if lines[at].startswith("#"):
            heading = lines[at].lstrip("# ")
        if not (lines[at].startswith("|") and at + 1 < len(lines) and _rule(lines[at + 1])):
            at += 1
            continue
        columns, rows = _cells(lines[at]), []
        at += 2
        while at < len(lines) and lines[at].startswith("|"):
            rows.append(_cells(lines[at]))
            at += 1
        yield {"under": heading, "columns": columns, "rows": rows}


def _rule(line: str) -> bool:
    return bool(re.fullmatch(r"\|[-:| ]+\|", line))


def _cells(line: str) -> list[str]:
    return [LINK.sub(r"\1", cell).replace("**", "").strip() for cell in line.strip("|").split("|")]


def pages() -> list[Path]:
    """Returns the pages whose JSON comes from them, or is missing."""
    found = []
    for page in sorted(RECORDS.glob("20*.md")):
        beside = page.with_suffix(".json")
        if not beside.exists() or "from_page" in json.loads(beside.read_text()):
            found.append(page)
    return found


def main() -> int:
    """Writes or checks; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check = parser.parse_args().check
    differing = 0
    for page in pages():
        beside, content = page.with_suffix(".json"), page_content(page)
        if check:
            same = beside.exists() and json.loads(beside.read_text()) == content
            differing += not same
            if not same:
                print(f"{beside.name} must hold what {page.name} says. Make it again.")
        else:
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            beside.write_text(text, encoding="utf-8")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
