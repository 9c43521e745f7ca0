"""From the texts of labels to the numbers of classes, and what has to be said about them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from raygrad.data.label_rules import LabelRule

MAX_CLASSES = 2**20
"""Labels are counted from 0, so a number beyond this is no class but something else."""

_WILD_FACTOR, _WILD_SHARE = 10, 0.01
_MAX_NAME = 200
_SHOWN = 5


@dataclass(frozen=True)
class ClassNumbers:
    """The classes of a data set, in the order of their numbers."""

    names: tuple[str, ...]
    """The name of each class."""
    notes: tuple[str, ...] = ()
    """What the user should know about them."""
    by_name: bool = False
    """Labels are names before they are numbers."""
    by_number: bool = True
    """Labels may be numbers."""
    renumbered: bool = False
    """Labels are numbers, and the names are those numbers."""

    def number_of(self, text: str) -> int:
        """Returns the number of a label, -1 where it is no class."""
        number = None
        if self.renumbered:
            found = _number(text)
            return self._places.get("" if found is None else str(found), -1)
        if self.by_name:
            number = self._places.get(text)
        if number is None and self.by_number:
            number = _number(text)
            if number is None and not self.by_name:
                number = self._places.get(text)
        return number if number is not None and number < len(self.names) else -1

    @cached_property
    def _places(self) -> dict[str, int]:
        return {text: number for number, text in enumerate(self.names)}


def given_classes(names: Sequence[str], rule: LabelRule) -> ClassNumbers:
    """Returns classes whose names and order are known.

    Members such as ``.cls`` hold numbers where they can be one, others names: shards that raygrad
    wrote hold numbers, whatever their classes are called.
    """
    by_name = rule.names_only or rule.is_table or rule.text.startswith("json:")
    return ClassNumbers(tuple(names), by_name=by_name, by_number=not rule.names_only)


def found_classes(
    counts: Mapping[str, int], rule: LabelRule, *, renumber: bool = False
) -> ClassNumbers:
    """Returns the classes that training examples show.

    Labels that are numbers count from "0" to the largest; with `renumber` the numbers that occur
    are the classes. Others, and all folders, are names, in sorted order. Where both occur, what
    more examples have decides.

    Args:
        counts: How many examples have each text.
        rule: Where labels stand.
        renumber: Number the classes anew, from 0 and without gaps.
    """
    numbers: Counter[int] = Counter()
    for text, count in counts.items():
        number = _number(text)
        if number is not None:
            numbers[number] += count
    total = sum(counts.values())
    if rule.names_only or 2 * numbers.total() <= total:
        names = sorted(text for text in counts if len(text) <= _MAX_NAME)
        return ClassNumbers(
            tuple(names), _notes_on_names(names, total), by_name=True, by_number=False
        )
    if renumber:
        names = [str(number) for number in sorted(numbers)]
        return ClassNumbers(tuple(names), renumbered=True)
    last = _last_class(numbers)
    return ClassNumbers(tuple(map(str, range(last + 1))), _notes_on_numbers(numbers, last))


def _last_class(numbers: Mapping[int, int]) -> int:
    """Returns the largest number that is a class.

    Where all numbers up to one have examples, and the few examples beyond it have numbers ten
    times as large, those are broken labels and no classes.
    """
    found = sorted(numbers)
    first = found[0] if found and found[0] <= 1 else 0
    dense = first
    while dense in numbers:
        dense += 1
    beyond = [number for number in found if number >= dense]
    if not beyond or dense <= first + 1:
        return found[-1] if found else -1
    few = sum(numbers[n] for n in beyond) <= _WILD_SHARE * sum(numbers.values())
    return dense - 1 if few and beyond[0] >= _WILD_FACTOR * dense else found[-1]


def _notes_on_numbers(numbers: Mapping[int, int], last: int) -> tuple[str, ...]:
    notes = []
    wild = sorted(number for number in numbers if number > last)
    if wild:
        count = sum(numbers[number] for number in wild)
        notes.append(
            f"labels {_some(wild)} of {count} example{'s' * (count != 1)} are far beyond the "
            f"classes, which are 0 to {last}: rejected"
        )
    empty = [number for number in range(last + 1) if number not in numbers]
    if empty:
        notes.append(
            f"{len(empty)} of {last + 1} classes have no training example: {_some(empty)}. "
            "That is right for a network of these classes; to number the classes anew, from 0 "
            "and without gaps: --renumber"
        )
    return tuple(notes)


def _notes_on_names(names: Sequence[str], total: int) -> tuple[str, ...]:
    if len(names) < 3 or 2 * len(names) <= total:
        return ()
    return (
        f"{len(names)} different labels in {total} training examples, such as {names[0][:60]!r}: "
        "if they are captions and no classes, give other --labels",
    )


def _some(numbers: Sequence[int]) -> str:
    """Returns numbers as text, runs joined, at most `_SHOWN` of them."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(a) if a == b else f"{a} to {b}" for a, b in runs[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(runs) > _SHOWN else "")


def _number(text: str) -> int | None:
    """Returns a class number, or None where the text is none."""
    usable = text.isascii() and text.isdecimal() and len(text) < 9
    return int(text) if usable and int(text) < MAX_CLASSES else None
