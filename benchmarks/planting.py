"""Plants what an audit should find in a data set that is known: wrong labels, copies.

`<number>-<class>` is a picture with its true class; `-exact` and `-near` end the names of its
copies, so that what was done to a picture can be read from its key.
"""

import io
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ENDINGS = (".jpg", ".jpeg", ".png")
WAYS = ("rescaled", "recompressed", "cropped")
"""How a near copy differs from its picture."""


@dataclass(frozen=True)
class Picture:
    """A picture of a data set, as its file holds it."""

    name: str
    """Of its class."""
    data: bytes
    ending: str

    def image(self) -> Image.Image:
        """Returns it decoded, grey or in colours."""
        image = Image.open(io.BytesIO(self.data))
        return image if image.mode == "L" else image.convert("RGB")


def pictures(place: Path, most: int | None) -> list[Picture]:
    """Returns a data set, the first of each class where there are too many.

    Args:
        place: A folder or a tar of class folders, or a folder of MNIST's idx files.
        most: How many at most, as many of each class.
    """
    found: dict[str, list[Picture]] = defaultdict(list)
    for picture in _all(place):
        found[picture.name].append(picture)
    each = None if most is None else most // len(found)
    return [one for name in sorted(found) for one in found[name][:each]]


def _all(place: Path) -> Iterator[Picture]:
    if place.is_file():
        with tarfile.open(place) as tar:
            for member in tar:
                path = PurePath(member.name)
                if member.isfile() and path.suffix.lower() in ENDINGS:
                    data = tar.extractfile(member)
                    assert data is not None
                    yield Picture(path.parent.name, data.read(), path.suffix.lower())
        return
    raw = sorted(place.rglob("train-images-idx3-ubyte"))
    if raw:
        yield from _of_idx(raw[0], raw[0].with_name("train-labels-idx1-ubyte"))
        return
    for path in sorted(p for p in place.rglob("*") if p.suffix.lower() in ENDINGS):
        yield Picture(path.parent.name, path.read_bytes(), path.suffix.lower())


def _of_idx(images: Path, labels: Path) -> Iterator[Picture]:
    pixels = np.frombuffer(images.read_bytes(), np.uint8, offset=16).reshape(-1, 28, 28)
    classes = np.frombuffer(labels.read_bytes(), np.uint8, offset=8)
    for one, label in zip(pixels, classes, strict=True):
        out = io.BytesIO()
        Image.fromarray(one).save(out, "PNG")
        yield Picture(str(label), out.getvalue(), ".png")


def near_copy(image: Image.Image, way: str, rng: np.random.Generator) -> Image.Image:
    """Returns a picture rescaled by 0.6 to 1.4, compressed again or cropped by up to 3% a side.

    Args:
        image: Of any size.
        way: One of `WAYS`.
        rng: Chooses how much.
    """
    if way == "rescaled":
        scale = rng.uniform(0.6, 1.4)
        width, height = (max(8, round(side * scale)) for side in image.size)
        return image.resize((width, height), Image.Resampling.BICUBIC)
    if way == "recompressed":
        out = io.BytesIO()
        image.save(out, "JPEG", quality=int(rng.integers(30, 80)))
        return Image.open(out).convert(image.mode)
    most = max(1, round(0.03 * min(image.size)))
    left, top, right, bottom = rng.integers(0, most + 1, 4).tolist()
    if not left + top + right + bottom:
        left = 1
    return image.crop((left, top, image.width - right, image.height - bottom))


def wrong_labels(
    labels: NDArray[np.int64], share: float, partners: NDArray[np.int64] | None, seed: int
) -> NDArray[np.int64]:
    """Returns labels of which a share is another class: any, or each class's own partner.

    Args:
        labels: The true ones, ``[N]``.
        share: How many of them are changed, in (0, 1).
        partners: The class that each is taken for, ``[C]``; None for any other.
        seed: Chooses which.
    """
    rng = np.random.default_rng(seed)
    wrong = rng.permutation(len(labels))[: round(share * len(labels))]
    changed, classes = labels.copy(), int(labels.max()) + 1
    if partners is None:
        changed[wrong] = (labels[wrong] + rng.integers(1, classes, len(wrong))) % classes
    else:
        changed[wrong] = partners[labels[wrong]]
    return changed


def plant_copies(found: list[Picture], out: Path, share: float, seed: int) -> None:
    """Writes class folders of pictures, a share of which is there twice, and a share nearly.

    Exact copies have the same pixels in a file of another kind.

    Args:
        found: The data set.
        out: The folder.
        share: Of exact copies, and of near ones, in [0, 0.5].
        seed: Chooses which, and how near copies differ.
    """
    rng = np.random.default_rng(seed)
    for at, one in enumerate(found):
        folder = out / one.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{at:06d}-{one.name}{one.ending}").write_bytes(one.data)
    copied = rng.permutation(len(found))[: 2 * round(share * len(found))]
    for place, at in enumerate(copied.tolist()):
        one, way = found[at], WAYS[place // 2 % 3]
        image = one.image() if place % 2 == 0 else near_copy(one.image(), way, rng)
        kind = "exact" if place % 2 == 0 else f"{way}-near"
        image.save(out / one.name / f"{at:06d}-{one.name}-{kind}.png", compress_level=1)


def original(key: str) -> int:
    """Returns the number of the picture that a key is of, or a copy of."""
    return int(key.rsplit("/", 1)[-1].split("-")[0])


def true_class(key: str) -> str:
    """Returns the class that a key's picture has."""
    return key.rsplit("/", 1)[-1].split("-")[1]
