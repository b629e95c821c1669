"""One picture file, PNG or JPEG, to pixels: decoded by Pillow, made upright and square.

    orientation    as the camera's EXIF note says, so that pixels are what people see
    transparency   the picture lies on white; a colour of 16 bits that stands for it is refused
    16 bits        the upper 8 of them, as Pillow takes of colours of 16 bits
    palettes       their colours; CMYK and YCCK by Pillow's plain conversion to RGB, without colour profiles
    animations     the first picture of several, as of a phone's that keeps more than one in a file

Sizes change by Pillow's bilinear filter, whose support grows with the reduction, so that nothing is aliased.
`crop` gives the pixels of torchvision's `Resize(size)` and then `CenterCrop(size)`.
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

SUFFIXES = (".png", ".jpg", ".jpeg")  # in any case; what a file holds is told by its content
FORMATS = ("PNG", "JPEG")  # no other decoder is ever tried
LARGEST = 2**28  # bytes of a file
MOST_PIXELS = 2**26  # of a picture as it is stored: 67 million, 200 MB decoded
MOST_RATIO = 100  # of a picture's sides, where it is to become square
# How far apart Pillow puts the grey levels of 2 and of 4 bits, by its raw modes.
APART = {"L;2": 85, "L;4": 17}
GREY = {"1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I"}  # Pillow's modes without colour


def read(path: Path, size: int | None, fit: str, channels: int | None) -> np.ndarray:
    """The pixels of a picture.

    Parameters
    ----------
    path : Path
    size : int or None
        The side of the square that it becomes; None leaves it as it is.
    fit : str
        How: a key of `FITS`.
    channels : {None, 1, 3}
        1 turns colours into grey levels (Pillow's "L": 0.299 R + 0.587 G + 0.114 B), before sizes change;
        None keeps one channel where the file has grey levels alone; 3 leaves that to the caller.

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
    """A picture of which only the header is read yet; whatever goes wrong with it is one line."""
    from PIL import Image

    try:
        content = read_plain(path, LARGEST)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # of sizes, which are bounded here, and of odd notes beside the pixels
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ValueError(
                        f"it has {image.width} x {image.height} pixels, more than {MOST_PIXELS:,}"
                    )
                yield image
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes decoders raise of all kinds, struct.error among them
        said = getattr(error, "strerror", None) or one_line(error, 100) or type(error).__name__
        if "cannot identify image file" in said:  # which goes on with the address of an object in memory
            said = "it holds no picture of these kinds"
        if "decompression bomb" in said:  # far above the bound here
            said = f"it claims more than {MOST_PIXELS:,} pixels, a decompression bomb"
        raise UserError(
            f"{short(str(path))} cannot be read as a PNG or JPEG picture ({said}): mend it or remove it"
        ) from None


def _plain(image: "ImageFile", channels: int | None) -> "Image":
    """The picture upright, in grey levels or RGB of 8 bits, without transparency."""
    from PIL import Image, ImageOps

    stored = image.tile[0][3] if image.tile else ""  # the raw mode, which is gone once pixels are decoded
    upright = ImageOps.exif_transpose(image)
    grey = upright.mode in GREY or stored == "LA;16B"  # which Pillow decodes as RGBA
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
    """The shorter side becomes `size`, and of the longer one the middle stays."""
    width, height = image.size
    shorter = min(width, height)
    scaled = (int(size * width / shorter), int(size * height / shorter))
    left, top = (int(round((side - size) / 2.0)) for side in scaled)
    return _scaled(image, scaled).crop((left, top, left + size, top + size))


def _pad(image: "Image", size: int) -> "Image":
    """The longer side becomes `size`, and black fills what is left at both ends of the other."""
    from PIL import Image

    longer = max(image.size)
    width, height = (max(1, round(size * side / longer)) for side in image.size)
    square = Image.new(image.mode, (size, size))
    square.paste(_scaled(image, (width, height)), ((size - width) // 2, (size - height) // 2))
    return square


def _stretch(image: "Image", size: int) -> "Image":
    """Both sides become `size`."""
    return _scaled(image, (size, size))


def _scaled(image: "Image", size: tuple[int, int]) -> "Image":
    from PIL import Image

    return image.resize(size, Image.Resampling.BILINEAR)


FITS: "dict[str, Callable[[Image, int], Image]]" = {"crop": _crop, "pad": _pad, "stretch": _stretch}
