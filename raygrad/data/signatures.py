"""What a file really is, told by its first bytes: for reasons and errors, never to decide a label.

Downloads leave pages, pointers and other formats under the names of images and tars. A reason that
names what is there can be acted upon and, having no address or count in it, grouped.
"""

import re

HEAD_BYTES = 512
"""As many first bytes as `kind_of` looks at."""

_AT_START = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"II+\0", "a TIFF image"),
    (b"MM\0+", "a TIFF image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\0\0\x01\0", "an icon"),
    (b"8BPS", "a Photoshop image"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"qoif", "a QOI image"),
    (b"DDS ", "a DDS image"),
    (b"SIMPLE  =", "a FITS image"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x5d\0\0", "lzma"),
    (b"\x1f\x9d", "compress (.Z)"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"FEA1", "a Feather file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"%PDF-", "a PDF document"),
    (b"\x1aE\xdf\xa3", "a Matroska video"),
    (b"\0\x05\x16\x07", "an AppleDouble file (what macOS keeps beside a file, not the file)"),
    (b"\0\x05\x16\0", "an AppleSingle file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"version https://git-lfs", "a git-lfs pointer"),
    (b"/annex/objects/", "a git-annex pointer"),
    (b"#!", "a script"),
)
_IN_BOX = {
    b"avif": "an AVIF image",
    b"avis": "an AVIF image",
    b"heic": "a HEIC image",
    b"heix": "a HEIC image",
    b"hevc": "a HEIC image",
    b"mif1": "a HEIF image",
    b"msf1": "a HEIF image",
    b"crx ": "a raw photograph",
}
_IN_RIFF = {b"WEBP": "a WebP image", b"AVI ": "an AVI video", b"WAVE": "a WAV sound"}
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_BMP = re.compile(rb"BM.{4}\0{4}.{4}[\x0c\x28\x38\x40\x6c\x7c]\0{3}", re.DOTALL)
_NETPBM = re.compile(rb"P[1-7]\s")
_TEXTS = (
    (
        re.compile(rb"(<!--.*?-->\s*)?<(!doctype html|html|head|body)\b", re.I | re.S),
        "an HTML page",
    ),
    (re.compile(rb"(<\?xml.*?)?<error>", re.I | re.S), "an XML error message"),
    (re.compile(rb"(<\?xml.*?|<!doctype svg.*?)?<svg", re.I | re.S), "an SVG drawing"),
    (re.compile(rb"<\?xml", re.I), "an XML file"),
    (re.compile(rb"[\[{]\s*[\"{\[\]}\d]"), "a JSON file"),
)
UNTOLD = ("an empty file", "zeros", "a text file", "data of no known format")
"""What `kind_of` calls files of which it cannot tell more."""

_LONGEST_CHARACTER = 4


IMAGE_EXTENSIONS = {
    "a JPEG image": "jpg",
    "a PNG image": "png",
    "a WebP image": "webp",
    "a GIF image": "gif",
    "a BMP image": "bmp",
    "a TIFF image": "tif",
}
"""The images that are decoded, and the ending that a file of each gets."""

CODECS = {"gzip": "gzip", "bzip2": "bz2", "zstd": "zstd", "lz4": "lz4", "xz": "xz"}
"""The compressions that are read, by what `kind_of` calls them: the codec's name."""


def kind_of(head: bytes) -> str:
    """Returns what a file is, such as ``a WebP image``, ``an HTML page`` or ``bzip2``.

    The same kind of file gives the same words, so that reasons can be counted.

    Args:
        head: The first bytes of the file, `HEAD_BYTES` of them or all it has.

    Returns:
        A noun with its article; ``data of no known format`` where nothing fits.
    """
    head = bytes(head[:HEAD_BYTES])
    if not head:
        return "an empty file"
    if not head.strip(b"\0"):
        return "zeros"
    return _by_magic(head) or _by_text(head) or "data of no known format"


def _by_magic(head: bytes) -> str:
    for magic, name in _AT_START:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF":
        return _IN_RIFF.get(head[8:12], "a RIFF file")
    if head[4:8] == b"ftyp":
        return _IN_BOX.get(head[8:12], "an MP4 or QuickTime video")
    if head[257:262] == b"ustar":
        return "a tar"
    if head[128:132] == b"DICM":
        return "a DICOM image"
    if _BMP.match(head):
        return "a BMP image"
    if _NETPBM.match(head):
        return "a PNM image"
    return "a Python pickle" if _PICKLE.match(head) else ""


def _by_text(head: bytes) -> str:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for pattern, name in _TEXTS:
        if pattern.match(text):
            return name
    try:
        shown = head.decode()
    except UnicodeDecodeError as error:
        if len(head) < HEAD_BYTES or error.start <= len(head) - _LONGEST_CHARACTER:
            return ""
        shown = head[: error.start].decode()  # the last character is cut
    return "a text file" if all(c.isprintable() or c in "\t\r\n\f\v" for c in shown) else ""
