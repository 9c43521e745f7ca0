"""Claim: raygrad's JPEG decoder is the fastest of those that give exactly Pillow's pixels.

Decodes the same photographs with every decoder that is installed, in one process and one thread,
in turn; then the same photographs enlarged, to a target of 256 pixels, with each decoder's own
scaled decoding. Prints rates relative to Pillow and how far pixels are from Pillow's.
"""

import argparse
import importlib.util
import io
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from raygrad.data import decode
from raygrad.data.index import build_index
from raygrad.data.reading import read_rows
from raygrad.data.urls import expand

Decoder = Callable[[bytes], np.ndarray]


def main() -> None:
    """Prints one line a decoder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", nargs="+", help="URLs of tars of JPEGs")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--enlarge", type=int, default=1200, help="longer side, 0 for none")
    args = parser.parse_args()
    torch.set_num_threads(1)
    index = build_index(expand(args.shards), [], val_fraction=0.0)
    images = [e.image for e in read_rows(index, index.examples.slice(0, args.images))]
    compare("as they are", images, decoders(), args.repeats)
    if args.enlarge:
        large = [enlarged(image, args.enlarge) for image in images[:100]]
        name = f"{args.enlarge} pixels, decoded for a target of 256"
        compare(name, large, scaled_decoders(), args.repeats)


def decoders() -> dict[str, Decoder]:
    """Returns the decoders that are installed, Pillow first."""
    found: dict[str, Decoder] = {"Pillow": pillow, "raygrad": decode.decode_image}
    found["raygrad, Pillow alone"] = without_simplejpeg
    if has("torchvision"):
        found["torchvision.io"] = torchvision_io
    if has("simplejpeg"):
        import simplejpeg

        found["simplejpeg"] = simplejpeg.decode_jpeg
    if has("cv2"):
        found["OpenCV"] = opencv
    if has("turbojpeg"):
        import turbojpeg

        try:
            turbo = turbojpeg.TurboJPEG()
        except RuntimeError as error:
            print(f"PyTurboJPEG is left out: {error}")
        else:
            found["PyTurboJPEG"] = lambda data: turbo.decode(data, turbojpeg.TJPF_RGB)
    return found


def scaled_decoders() -> dict[str, Decoder]:
    """Returns decoders that may give a smaller image, neither side below 256."""
    found: dict[str, Decoder] = {"Pillow": pillow, "Pillow, draft": pillow_draft}
    found["raygrad, at_least=256"] = lambda data: decode.decode_image(data, at_least=256)
    if has("simplejpeg"):
        import simplejpeg

        found["simplejpeg, in full"] = simplejpeg.decode_jpeg
        found["simplejpeg, scaled"] = lambda data: simplejpeg.decode_jpeg(
            data, min_height=256, min_width=256, min_factor=1
        )
    if has("cv2"):
        found["OpenCV, in full"] = opencv
    return found


def has(module: str) -> bool:
    """Tells whether a module is installed."""
    return importlib.util.find_spec(module) is not None


def pillow(data: bytes) -> np.ndarray:
    """Decodes with Pillow."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def pillow_draft(data: bytes) -> np.ndarray:
    """Decodes with Pillow at a reduced size."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (256, 256))
    return np.asarray(image.convert("RGB"))


def without_simplejpeg(data: bytes) -> np.ndarray:
    """Decodes as raygrad does where simplejpeg is not installed."""
    installed, decode.simplejpeg = decode.simplejpeg, None
    try:
        return decode.decode_image(data)
    finally:
        decode.simplejpeg = installed


def torchvision_io(data: bytes) -> np.ndarray:
    """Decodes with torchvision's own libjpeg."""
    from torchvision.io import ImageReadMode, decode_jpeg

    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return decode_jpeg(encoded, ImageReadMode.RGB).permute(1, 2, 0).numpy()


def opencv(data: bytes) -> np.ndarray:
    """Decodes with OpenCV, and turns BGR into RGB."""
    import cv2

    encoded = np.frombuffer(data, np.uint8)
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def enlarged(data: bytes, longer_side: int) -> bytes:
    """Returns a photograph as a larger JPEG."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    factor = longer_side / max(image.size)
    size = (round(image.width * factor), round(image.height * factor))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def compare(name: str, images: list[bytes], found: dict[str, Decoder], repeats: int) -> None:
    """Times all decoders in turn and prints them against the first."""
    usable = [one for one in images if not failing(one, found)]
    print(f"{name}: {len(usable)} of {len(images)} photographs that all decoders take, n={repeats}")
    times: dict[str, list[float]] = {name: [] for name in found}
    for repeat in range(repeats + 1):
        for decoder, call in found.items():
            start_s = time.perf_counter()
            for one in usable:
                call(one)
            if repeat:
                times[decoder].append(time.perf_counter() - start_s)
    first = next(iter(found))
    for decoder, call in found.items():
        ratios = [a / b for a, b in zip(times[first], times[decoder], strict=True)]
        print(
            f"  {decoder:24} {statistics.median(ratios):5.2f} times {first} "
            f"({min(ratios):.2f} to {max(ratios):.2f}), "
            f"{len(usable) / statistics.median(times[decoder]):7.0f} images/s; "
            f"{difference(usable, call, found[first])}"
        )


def failing(data: bytes, found: dict[str, Decoder]) -> bool:
    """Tells whether a decoder refuses an image (CMYK, a PNG, a flaw)."""
    for call in found.values():
        try:
            call(data)
        except Exception:  # noqa: BLE001  # each library raises its own errors
            return True
    return False


def difference(images: list[bytes], call: Decoder, reference: Decoder) -> str:
    """Says how far a decoder's pixels are from the reference's."""
    same, largest = 0, 0
    for one in images[:100]:
        ours, theirs = call(one).astype(int), reference(one).astype(int)
        if ours.shape != theirs.shape:
            return (
                f"smaller: {ours.shape[1]}x{ours.shape[0]} of {theirs.shape[1]}x{theirs.shape[0]}"
            )
        difference_ = int(np.abs(ours - theirs).max())
        same, largest = same + (difference_ == 0), max(largest, difference_)
    return f"{same} of {len(images[:100])} pixel for pixel, largest difference {largest}"


if __name__ == "__main__":
    main()
