"""One decode function: every kind of JPEG and PNG to the pixels that Pillow gives, or a reason."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
import torchvision.transforms as tv
from PIL import Image

from raygrad.data.decode import decode_image
from raygrad.data.transforms import CropTransform
from raygrad.errors import ConfigError, DataError
from tests.data.making import jpeg, noise


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RGB = Image.fromarray(noise(1))
GREY = RGB.convert("L")
PALETTE = RGB.quantize(16)
ROTATED = Image.Exif()
ROTATED[274] = 6

KINDS = {
    "jpeg": encoded(RGB, "JPEG"),
    "grey jpeg": encoded(GREY, "JPEG"),
    "cmyk jpeg": encoded(RGB.convert("CMYK"), "JPEG"),
    "progressive jpeg": encoded(RGB, "JPEG", progressive=True),
    "jpeg without subsampling": encoded(RGB, "JPEG", subsampling=0),
    "png": encoded(RGB, "PNG"),
    "grey png": encoded(GREY, "PNG"),
    "png with alpha": encoded(RGB.convert("RGBA"), "PNG"),
    "grey png with alpha": encoded(GREY.convert("LA"), "PNG"),
    "palette": encoded(PALETTE, "PNG"),
    "palette with transparency": encoded(PALETTE, "PNG", transparency=bytes(range(16))),
    "one bit": encoded(GREY.convert("1"), "PNG"),
    "webp": encoded(RGB, "WEBP", lossless=True),
    "webp with alpha": encoded(RGB.convert("RGBA"), "WEBP"),
    "gif": encoded(RGB, "GIF"),
    "gif of two pictures": encoded(RGB, "GIF", save_all=True, append_images=[GREY]),
    "webp of two pictures": encoded(RGB, "WEBP", save_all=True, append_images=[GREY]),
    "bmp": encoded(RGB, "BMP"),
    "tiff": encoded(RGB, "TIFF"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_every_kind_gives_the_pixels_of_pillow(kind, channels, mode):
    image = Image.open(io.BytesIO(KINDS[kind]))
    through = image.convert("RGBA") if "transparency" in image.info else image
    expected = np.asarray(through.convert(mode)).reshape(16, 24, channels)
    pixels = decode_image(KINDS[kind], channels=channels)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled_and_not_clipped(channels):
    values = np.arange(0, 65536, 128, dtype=np.uint16).reshape(16, 32)
    pixels = decode_image(encoded(Image.fromarray(values), "PNG"), channels=channels)
    np.testing.assert_array_equal(pixels, np.repeat((values // 256)[..., None], channels, axis=2))


def test_a_rotation_in_exif_is_ignored():
    turned = decode_image(encoded(RGB, "JPEG", exif=ROTATED))
    np.testing.assert_array_equal(turned, decode_image(encoded(RGB, "JPEG")))


def test_random_jpegs_of_odd_sizes_give_the_pixels_of_pillow():
    for at, size in enumerate([(1, 1), (1, 9), (9, 1), (17, 33), (64, 48)]):
        data = jpeg(at, size)
        np.testing.assert_array_equal(decode_image(data), np.asarray(Image.open(io.BytesIO(data))))


def bomb(width=100_000, height=100_000):
    """Returns a PNG of a few hundred bytes that says it is huge."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(10**5))),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def text_bomb():
    """Returns a PNG whose compressed text is 64 MB."""
    small = encoded(RGB, "PNG")
    text = b"k\0\0" + zlib.compress(bytes(64 * 2**20))
    chunk = (
        struct.pack(">I", len(text))
        + b"zTXt"
        + text
        + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    )
    return small[:33] + chunk + small[33:]


NO_IMAGES = {
    "no byte": b"",
    "text": b"hello",
    "html": b"<html>404</html>",
    "pickle": b"\x80\x04\x95\x00",
    "cut webp": encoded(RGB, "WEBP")[:-40],
    "cut tiff": encoded(RGB, "TIFF")[:-40],
    "avif": encoded(RGB, "AVIF"),
    "floating point": encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"),
    "32 bits": encoded(Image.fromarray(np.full((4, 4), 2**20, np.int32)), "TIFF"),
    "cut jpeg": KINDS["jpeg"][:-40],
    "cut png": KINDS["png"][:-40],
    "jpeg header alone": KINDS["jpeg"][:30],
    "png header alone": KINDS["png"][:33],
    "png with a wrong checksum": KINDS["png"][:20] + b"\xff" + KINDS["png"][21:],
    "bomb": bomb(),
    "bomb of pillow's limit": bomb(10_000, 10_000),
    "bomb of text": text_bomb(),
    "size zero": bomb(0, 0),
    "script": b"#!/bin/sh\nexit 1\n",
}


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_what_is_no_image_is_refused_with_a_reason_of_one_line(kind):
    with pytest.raises(DataError) as caught:
        decode_image(NO_IMAGES[kind])
    assert "an image must" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_cut_of_a_jpeg_or_png_is_refused():
    for kind in ("jpeg", "grey jpeg", "cmyk jpeg"):
        data = KINDS[kind]
        for length in range(len(data) - 2):  # the closing marker itself can be missed
            with pytest.raises(DataError):
                decode_image(data[:length])


def test_random_damage_never_ends_in_another_error():
    rng = np.random.default_rng(0)
    for data in KINDS.values():
        for _ in range(40):
            broken = bytearray(data)
            for at in rng.integers(0, len(data), 4):
                broken[at] = rng.integers(256)
            with contextlib.suppress(DataError):
                assert decode_image(bytes(broken)).ndim == 3


def test_pillow_alone_gives_the_same_pixels_and_the_same_refusals(monkeypatch):
    """Nothing depends on whether the faster decoder is installed."""
    pytest.importorskip("simplejpeg")
    rng = np.random.default_rng(0)
    inputs = []
    for kind in ("jpeg", "grey jpeg", "progressive jpeg"):
        inputs += [KINDS[kind][:length] for length in range(len(KINDS[kind]) + 1)]
        for _ in range(100):
            broken = bytearray(KINDS[kind])
            for at in rng.integers(0, len(broken), 2):
                broken[at] = rng.integers(256)
            inputs.append(bytes(broken))

    def outcomes():
        for data in inputs:
            try:
                pixels = decode_image(data, max_pixels=10**5)
                yield pixels.shape, pixels.tobytes()
            except DataError:
                yield None

    fast = list(outcomes())
    monkeypatch.setattr("raygrad.data.decode.simplejpeg", None)
    assert list(outcomes()) == fast


def test_pixels_are_bounded_as_asked():
    assert decode_image(KINDS["png"], max_pixels=24 * 16).shape == (16, 24, 3)
    with pytest.raises(DataError, match=r"at most 383 pixels, got 24 x 16"):
        decode_image(KINDS["png"], max_pixels=24 * 16 - 1)


def test_a_large_jpeg_is_decoded_smaller_where_that_is_allowed():
    data = jpeg(0, (800, 600))
    assert decode_image(data, at_least=200).shape == (300, 400, 3)
    assert decode_image(data, at_least=301).shape == (600, 800, 3)
    whole = decode_image(data).astype(int).reshape(300, 2, 400, 2, 3).mean((1, 3))
    assert np.abs(whole - decode_image(data, at_least=200)).mean() < 2


@pytest.mark.parametrize(
    "size", [(160, 213), (375, 500), (500, 375), (224, 224), (256, 256), (40, 700)]
)
@pytest.mark.parametrize("keep_aspect", [False, True])
def test_scoring_equals_torchvisions_transform(size, keep_aspect):
    data = jpeg(3, size)
    target = 256 if keep_aspect else (256, 256)
    reference = tv.Compose([tv.Resize(target), tv.CenterCrop(224)])
    expected = np.asarray(reference(Image.open(io.BytesIO(data)).convert("RGB")))
    np.testing.assert_array_equal(CropTransform(keep_aspect=keep_aspect).score(data), expected)


def test_training_crops_depend_on_seed_epoch_and_key_alone_and_cover_every_place():
    transform = CropTransform(resize=32, crop=28)
    image = np.zeros((32, 32), np.uint8)
    image[:] = np.arange(32) * 8 + np.arange(32)[:, None] % 5
    data = encoded(Image.fromarray(image), "PNG")

    def view(seed, epoch, key):
        return transform.train(data, seed=seed, epoch=epoch, key_hash=key, channels=1).tobytes()

    views = [view(0, epoch, key) for epoch in range(20) for key in range(20)]
    assert views == [view(0, epoch, key) for epoch in range(20) for key in range(20)]
    places = {
        np.ascontiguousarray(cut[:, ::flip]).tobytes()
        for top in range(5)
        for left in range(5)
        for flip in (1, -1)
        for cut in [image[top : top + 28, left : left + 28]]
    }
    assert set(views) == places
    assert len({view(seed, 0, 0) for seed in range(20)}) > 5


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ConfigError, match="crop must be"):
        CropTransform(resize=200, crop=224)
