"""Which decoder reads the photographs of a data set fastest, and do all give the same pixels?

Needs, beside raygrad: pip install simplejpeg PyTurboJPEG opencv-python-headless
(PyTurboJPEG is left out where the system has no libturbojpeg).
"""

import argparse
import io
import warnings
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from interleaved import print_rates, time_interleaved
from PIL import Image
from recording import recorded
from torchvision.io import ImageReadMode
from torchvision.io import decode_jpeg as torchvision_decode

from raygrad.data import decode

warnings.simplefilter("ignore", DeprecationWarning)


def pillow(data):
    """Decodes as torchvision's data sets do."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def torchvision_io(data):
    """Decodes with torchvision's own decoder, which it has deprecated."""
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return torchvision_decode(encoded, mode=ImageReadMode.RGB).permute(1, 2, 0).numpy()


def opencv(data):
    """Decodes with OpenCV, whose channels come in reverse."""
    return cv2.cvtColor(
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )


def raygrad_with_simplejpeg(data):
    """Decodes with all of raygrad's checks."""
    return decode.decode_image(data)


def raygrad_with_pillow(data):
    """Decodes as raygrad does where simplejpeg is not installed."""
    decode.simplejpeg = None
    try:
        return decode.decode_image(data)
    finally:
        decode.simplejpeg = simplejpeg


DECODERS = {
    "Pillow": pillow,
    "torchvision.io": torchvision_io,
    "OpenCV": opencv,
    "simplejpeg": simplejpeg.decode_jpeg,
    "raygrad, simplejpeg": raygrad_with_simplejpeg,
    "raygrad, Pillow": raygrad_with_pillow,
}
try:
    import turbojpeg

    _turbo = turbojpeg.TurboJPEG()
    DECODERS["PyTurboJPEG"] = lambda data: _turbo.decode(data, pixel_format=turbojpeg.TJPF_RGB)
except (ImportError, RuntimeError, OSError) as error:
    print(f"PyTurboJPEG is left out: {error}")


def enlarged(data, size):
    """Returns the photograph re-encoded at the size of a usual ImageNet file."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()


def main():
    """Prints a table for the files as they are, and one for the files enlarged to 500x375."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="photographs, in any folders below")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=7)
    args, record = recorded(parser, "Which decoder is fastest, and do all give the same pixels?")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    paths = sorted(args.folder.rglob("*.JPEG"))[
        :: max(1, len(list(args.folder.rglob("*.JPEG"))) // args.count)
    ]
    files = [path.read_bytes() for path in paths[: args.count]]
    for title, data in (
        ("as they are", files),
        ("500x375", [enlarged(f, (500, 375)) for f in files[::3]]),
    ):
        runs = {
            name: (lambda d=decoder, x=data: [d(one) for one in x])
            for name, decoder in DECODERS.items()
        }
        print(
            f"\n{len(data)} photographs {title}, {sum(map(len, data)) // len(data):,} bytes each\n"
        )
        seconds = time_interleaved(runs, args.repeats)
        print_rates(seconds, len(data), "images", "Pillow")
        for name, decoder in DECODERS.items():
            worst = max(int(np.abs(decoder(one).astype(int) - pillow(one)).max()) for one in data)
            print(f"largest difference of a pixel from Pillow, {name}: {worst}")
            record.add(
                files=title,
                images=len(data),
                decoder=name,
                seconds=seconds[name],
                largest_difference=worst,
            )


if __name__ == "__main__":
    main()
