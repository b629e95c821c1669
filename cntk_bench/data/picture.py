"""Decoding of one PNG or JPEG file by Pillow into upright, square pixels.

    orientation    follows the EXIF tag, so that pixels are what people see
    transparency   is put on white; a 16-bit colour that stands for it is refused
    16 bits        are cut to the upper 8, as Pillow does with 16-bit colours
    palettes       become their colours; CMYK and YCCK become RGB by Pillow's conversion, without profiles
    animations     give their first frame, as do phone pictures that hold several in one file

Resizing uses Pillow's bilinear filter, whose support grows with the reduction to avoid aliasing.
`crop` gives the same pixels as torchvision's `Resize(size)` followed by `CenterCrop(size)`.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cntk_bench.errors import UserError
from cntk_bench.system.files import read_plain
from cntk_bench.text import one_line, short

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

SUFFIXES = (".png", ".jpg", ".jpeg")  # in any case; the content decides which format a file has
FORMATS = ("PNG", "JPEG")  # no other decoder is ever tried
LARGEST = 2**28  # bytes of a file, at most
MOST_PIXELS = 2**26  # of a picture as stored: 67 million, 200 MB decoded
MOST_RATIO = 100  # between a picture's sides, if it is to be made square
# Steps between the grey levels that Pillow makes of 2 and of 4 bits, by its raw mode.
APART = {"L;2": 85, "L;4": 17}
GREY = {"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I"}  # Pillow's modes without colour


def read(path: Path, size: int | None, fit: str, channels: int | None) -> np.ndarray:
    """Read the pixels of a picture.

    Parameters
    ----------
    path : Path
    size : int or None
        Side of the square to make of it; None keeps its size.
    fit : str
        How to make it square: a key of `FITS`.
    channels : {None, 1, 3}
        1 turns colours into grey levels (Pillow's "L": 0.299 R + 0.587 G + 0.114 B) before resizing. With
        None or 3, a grey picture keeps its one channel; the caller repeats it if 3 are wanted.

    Returns
    -------
    array (H, W) of grey levels or (H, W, 3) of colours, uint8

    Raises
    ------
    UserError
        If the file cannot be read as a PNG or JPEG picture, is cut off, or is larger than the bounds above.
    """
    with _opened(path) as image:
        found = _plain(image, channels)
        if size is not None:
            if max(found.size) > MOST_RATIO * min(found.size):
                raise ValueError(
                    f"its sides, {found.width} x {found.height}, differ more than {MOST_RATIO} times"
                )
            found = FITS[fit](found, size)
        return np.asarray(found)


@contextmanager
def _opened(path: Path) -> "Iterator[ImageFile]":
    """Open a picture, reading only its header; turn any error inside the context into a UserError."""
    from PIL import Image

    try:
        content = read_plain(path, LARGEST)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # warnings about sizes, which are bounded here, and about odd metadata
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(
                        f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}"
                    )
                yield image
    except MemoryError:
        raise
    except Exception as error:  # decoders raise all kinds at a damaged file, struct.error among them
        said = getattr(error, "strerror", None) or one_line(error, 100) or type(error).__name__
        if "cannot identify image file" in said:  # the rest is an object's address in memory
            said = "it holds no picture of these kinds"
        if "decompression bomb" in said:  # its size is far above our bound
            said = f"it claims more than {MOST_PIXELS:,} pixels, a decompression bomb"
        raise UserError(
            f"{short(str(path))} cannot be read as a PNG or JPEG picture ({said}): mend it or remove it"
        ) from None


def _plain(image: "ImageFile", channels: int | None) -> "Image":
    """Convert a picture to upright 8-bit grey or RGB without transparency."""
    from PIL import Image, ImageOps

    stored = image.tile[0][3] if image.tile else ""  # the raw mode, lost once pixels are decoded
    upright = ImageOps.exif_transpose(image)
    grey = upright.mode in GREY or stored == "LA;16B"  # Pillow decodes this as RGBA
    if "transparency" in upright.info:
        if stored == "RGB;16B":
            raise ValueError("its transparent colour has 16 bits, of which 8 are read: save it with 8")
        if stored in APART:  # Pillow leaves the level in the units of the file
            apart = APART[stored]
            upright.info["transparency"] = apart * (upright.info["transparency"] % (255 // apart + 1))
    if upright.mode.startswith("I"):
        values = np.asarray(upright).astype(np.int64).clip(0, 65535)
        clear = values == upright.info.get("transparency", -1)
        upright = Image.fromarray(np.where(clear, 255, values >> 8).astype(np.uint8))
    elif upright.has_transparency_data:
        *_, alpha = layers = upright.convert("LA" if grey else "RGBA").split()
        ground = Image.new("L" if grey else "RGB", upright.size, "white")
        ground.paste(layers[0] if grey else Image.merge("RGB", layers[:3]), mask=alpha)
        upright = ground
    upright = upright.convert("L" if grey else "RGB")
    return upright.convert("L") if channels == 1 else upright


def _crop(image: "Image", size: int) -> "Image":
    """Scale the shorter side to `size` and keep the middle of the longer one."""
    width, height = image.size
    shorter = min(width, height)
    scaled = (int(size * width / shorter), int(size * height / shorter))
    left, top = (int(round((side - size) / 2.0)) for side in scaled)
    return _scaled(image, scaled).crop((left, top, left + size, top + size))


def _pad(image: "Image", size: int) -> "Image":
    """Scale the longer side to `size` and fill both ends of the other with black."""
    from PIL import Image

    longer = max(image.size)
    width, height = (max(1, round(size * side / longer)) for side in image.size)
    square = Image.new(image.mode, (size, size))
    square.paste(_scaled(image, (width, height)), ((size - width) // 2, (size - height) // 2))
    return square


def _stretch(image: "Image", size: int) -> "Image":
    """Scale both sides to `size`."""
    return _scaled(image, (size, size))


def _scaled(image: "Image", size: tuple[int, int]) -> "Image":
    from PIL import Image

    return image.resize(size, Image.Resampling.BILINEAR)


FITS: "dict[str, Callable[[Image, int], Image]]" = {"crop": _crop, "pad": _pad, "stretch": _stretch}
