"""Small tars and images that the tests of the data floor are made of."""

import io
import tarfile

import numpy as np
from PIL import Image

BLOCK = tarfile.BLOCKSIZE


def png(value=0, size=(4, 4), mode="RGB"):
    """Returns the bytes of a PNG of one value."""
    buffer = io.BytesIO()
    Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * len(mode)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def noise(seed, size=(24, 16), channels=3):
    """Returns a random image, smooth enough for JPEG, as uint8 `[H, W, C]`."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 4, channels), dtype=np.uint8)
    bands = [
        np.asarray(Image.fromarray(small[..., at]).resize(size, Image.Resampling.BICUBIC))
        for at in range(channels)
    ]
    return np.stack(bands, axis=-1)


def jpeg(seed=0, size=(24, 16), **options):
    """Returns the bytes of a random JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(noise(seed, size)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def tar(members, **options):
    """Returns a tar of (name or TarInfo, bytes) pairs, ended as a tar ends."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as out:
        for name, data in members:
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            if member.isreg():
                member.size = len(data)
            out.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def example(key, label=0, extension="png", image=None):
    """Returns the two members of an example."""
    return [
        (f"{key}.{extension}", png() if image is None else image),
        (f"{key}.cls", f"{label}".encode()),
    ]


def examples(keys, num_classes=3):
    """Returns the members of several examples, their labels in turn."""
    return [pair for at, key in enumerate(keys) for pair in example(key, at % num_classes)]


def put(folder, name, content):
    """Writes a tar, given as bytes or as members, and returns its URL."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else tar(content))
    return str(path)
