"""Pictures to pixels: every mode, orientation and size against NumPy; hostile files refused in one line."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from cntk_bench.data import picture
from cntk_bench.errors import UserError

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (11, 17, 3), dtype=np.uint8)
LEVELS = RNG.integers(0, 256, (11, 17), dtype=np.uint8)
WHOLE = (None, "crop", None)  # size, fit, channels: leave the picture as it is


def saved(folder, image, name="a.png", **options):
    image.save(folder / name, **options)
    return folder / name


def luma(colours):
    """Grey levels as defined by ITU-R 601-2."""
    return colours @ [0.299, 0.587, 0.114]


def near(found, expected, levels=1):
    assert found.dtype == np.uint8 and found.shape == np.shape(expected)
    assert abs(found.astype(float) - expected).max() <= levels


def test_colours_and_grey_levels_are_as_they_were(tmp_path):
    colours, grey = (
        saved(tmp_path, Image.fromarray(COLOURS)),
        saved(tmp_path, Image.fromarray(LEVELS), "g.png"),
    )
    assert np.array_equal(picture.read(colours, *WHOLE), COLOURS)
    assert np.array_equal(picture.read(grey, *WHOLE), LEVELS)
    near(picture.read(colours, None, "crop", 1), luma(COLOURS))
    assert np.array_equal(picture.read(grey, None, "crop", 1), LEVELS)


def test_a_palette_gives_its_colours(tmp_path):
    few = COLOURS // 128 * 100
    path = saved(tmp_path, Image.fromarray(few).quantize(8))
    assert Image.open(path).mode == "P" and np.array_equal(picture.read(path, *WHOLE), few)


def test_one_bit_is_black_or_white(tmp_path):
    path = saved(tmp_path, Image.fromarray(LEVELS > 99))
    assert Image.open(path).mode == "1"
    assert np.array_equal(picture.read(path, *WHOLE), np.where(LEVELS > 99, 255, 0))


def png_of_sixteen_bits(path, values, *chunks):
    """A PNG of grey levels (H, W) or colours (H, W, 3), or with transparency (H, W, 2) or (H, W, 4), written
    after the specification, as Pillow cannot write these."""
    rows = [row.astype(">u2").tobytes() for row in values]
    return written(path, values.shape, 16, rows, *chunks)


def png_of_few_bits(path, values, bits, *chunks):
    """The same for grey levels (H, W) of 1, 2, 4 or 8 bits."""
    each = np.unpackbits(values.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
    rows = [row.tobytes() for row in np.packbits(each.reshape(len(values), -1), axis=1)]
    return written(path, values.shape, bits, rows, *chunks)


def written(path, shape, bits, rows, *chunks):
    def chunk(kind, content):
        check = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)

    height, width, *last = shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[last[0] if last else 1]
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", head), *chunks, (b"IDAT", content), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    return path


def test_sixteen_bits_become_their_upper_eight_of_grey_levels_as_of_colours(tmp_path):
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    found = picture.read(png_of_sixteen_bits(tmp_path / "a.png", deep), *WHOLE)
    assert np.array_equal(found, deep >> 8)
    colours = np.dstack([deep, deep, deep])
    assert np.array_equal(
        picture.read(png_of_sixteen_bits(tmp_path / "a.png", colours), *WHOLE), colours >> 8
    )


def test_a_transparent_grey_level_of_sixteen_bits_shows_white(tmp_path):
    deep = np.array([[1000, 1001, 60000]], np.uint16)  # the first two share their upper byte
    path = png_of_sixteen_bits(tmp_path / "a.png", deep, (b"tRNS", struct.pack(">H", 1000)))
    assert picture.read(path, *WHOLE).tolist() == [[255, 1001 >> 8, 60000 >> 8]]


def test_grey_levels_of_sixteen_bits_with_transparency_stay_grey(tmp_path):
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    opaque = np.full_like(deep, 65535)
    found = picture.read(png_of_sixteen_bits(tmp_path / "a.png", np.dstack([deep, opaque])), *WHOLE)
    assert np.array_equal(found, deep >> 8)
    half = np.dstack([[[0, 65535, 0]], [[32768, 32768, 0]]])
    assert picture.read(png_of_sixteen_bits(tmp_path / "a.png", half), *WHOLE).tolist() == [[127, 255, 255]]
    colours = np.dstack([deep, deep, deep, opaque])
    assert picture.read(png_of_sixteen_bits(tmp_path / "a.png", colours), *WHOLE).shape == (256, 256, 3)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_grey_level_of_few_bits_shows_white(tmp_path, bits):
    values = np.arange(2**bits).reshape(2, -1)
    levels = values * 255 // (2**bits - 1)
    assert np.array_equal(picture.read(png_of_few_bits(tmp_path / "a.png", values, bits), *WHOLE), levels)
    for key in range(2**bits):
        # Bits above a level's own do not count, except at 1 bit.
        for more in (0, 2**bits):
            if bits == 1 and more:
                continue
            clear = (b"tRNS", struct.pack(">H", key + more))
            found = picture.read(png_of_few_bits(tmp_path / "a.png", values, bits, clear), *WHOLE)
            assert np.array_equal(found, np.where(values == key, 255, levels)), (key, more)


def test_a_transparent_colour_shows_white_of_sixteen_bits_it_is_refused(tmp_path):
    colours = np.array([[[1, 2, 3], [4, 2, 3]]])
    clear = (b"tRNS", struct.pack(">HHH", 1, 2, 3))
    path = tmp_path / "a.png"
    written(path, colours.shape, 8, [row.astype(np.uint8).tobytes() for row in colours], clear)
    assert picture.read(path, *WHOLE).tolist() == [[[255, 255, 255], [4, 2, 3]]]
    png_of_sixteen_bits(path, colours + 1000, (b"tRNS", struct.pack(">HHH", 1001, 1002, 1003)))
    with pytest.raises(UserError, match="its transparent colour has 16 bits, of which 8 are read: save it"):
        picture.read(path, *WHOLE)


def test_transparent_parts_show_white(tmp_path):
    alpha = RNG.integers(0, 256, (11, 17), dtype=np.uint8)
    alpha[0], alpha[1] = 0, 255
    share = alpha / 255.0
    path = saved(tmp_path, Image.fromarray(np.dstack([COLOURS, alpha])))
    found = picture.read(path, *WHOLE)
    near(found, COLOURS * share[..., None] + 255 * (1 - share[..., None]))
    assert (found[0] == 255).all() and np.array_equal(found[1], COLOURS[1])
    grey = picture.read(saved(tmp_path, Image.merge("LA", [*map(Image.fromarray, (LEVELS, alpha))])), *WHOLE)
    near(grey, LEVELS * share + 255 * (1 - share))


def test_a_transparent_colour_of_a_palette_shows_white(tmp_path):
    image = Image.fromarray((LEVELS > 99).astype(np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    found = picture.read(saved(tmp_path, image, transparency=0), *WHOLE)
    assert np.array_equal(found, np.where((LEVELS > 99)[..., None], [200, 100, 50], 255))


def test_cmyk_is_the_complement_of_inks(tmp_path):
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:] = [40, 90, 200, 30]
    path = saved(tmp_path, Image.fromarray(inks, "CMYK"), "a.jpg", quality=100)
    assert Image.open(path).mode == "CMYK"
    expected = np.broadcast_to((255 - inks[..., :3].astype(float)) * (255 - 30) / 255, (16, 16, 3))
    near(picture.read(path, *WHOLE), expected, 3)  # JPEG changes colours by a few levels


def test_of_an_animation_the_first_picture(tmp_path):
    others = [Image.fromarray(255 - COLOURS)]
    path = saved(tmp_path, Image.fromarray(COLOURS), save_all=True, append_images=others)
    assert Image.open(path).n_frames == 2 and np.array_equal(picture.read(path, *WHOLE), COLOURS)


UPRIGHT = {  # EXIF orientation -> how the stored pixels must be turned
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x.swapaxes(0, 1)[:, ::-1],
    7: lambda x: x.swapaxes(0, 1)[::-1, ::-1],
    8: lambda x: x.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_upright(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(COLOURS), exif=exif)
    assert np.array_equal(picture.read(path, *WHOLE), UPRIGHT[orientation](COLOURS))


def triangle(length, size):
    """The matrix (size, length), float64, of bilinear resizing; its support grows with the reduction."""
    scale = length / size
    support = max(scale, 1)
    distance = np.arange(length) + 0.5 - (np.arange(size)[:, None] + 0.5) * scale
    weights = np.maximum(0, 1 - abs(distance) / support)
    return weights / weights.sum(1, keepdims=True)


def resized(x, height, width):
    x = np.tensordot(triangle(x.shape[0], height), x.astype(float), (1, 0))
    return np.moveaxis(np.tensordot(triangle(x.shape[1], width), x, (1, 1)), 0, 1)


@pytest.mark.parametrize("size", [5, 8, 32])
@pytest.mark.parametrize("turned", [False, True])
def test_sizes_change_by_the_filter_that_is_told(tmp_path, size, turned):
    x = COLOURS.swapaxes(0, 1) if turned else COLOURS
    path = saved(tmp_path, Image.fromarray(x))
    near(picture.read(path, size, "stretch", None), resized(x, size, size), 1.01)
    padded = picture.read(path, size, "pad", None)
    short = round(size * 11 / 17)
    start = (size - short) // 2
    expected = np.zeros((size, size, 3))
    inside = (slice(None), slice(start, start + short)) if turned else (slice(start, start + short),)
    expected[inside] = resized(x, *((size, short) if turned else (short, size)))
    near(padded, expected, 1.01)
    long = int(size * 17 / 11)
    cut = int(round((long - size) / 2))
    middle = resized(x, *((long, size) if turned else (size, long)))
    expected = middle[cut : cut + size] if turned else middle[:, cut : cut + size]
    near(picture.read(path, size, "crop", None), expected, 1.01)


@pytest.mark.parametrize("shape", [(11, 17), (17, 11), (64, 64), (300, 201), (33, 32)])
@pytest.mark.parametrize("size", [8, 32])
def test_cropping_is_that_of_torchvision(torchvision, tmp_path, shape, size):
    from torchvision.transforms import CenterCrop, Compose, Resize

    image = Image.fromarray(RNG.integers(0, 256, (*shape, 3), dtype=np.uint8))
    theirs = np.asarray(Compose([Resize(size), CenterCrop(size)])(image))
    assert np.array_equal(picture.read(saved(tmp_path, image), size, "crop", None), theirs)


def test_a_picture_of_the_size_stays_as_it_is(tmp_path):
    x = RNG.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(x))
    assert all(np.array_equal(picture.read(path, 9, fit, None), x) for fit in picture.FITS)


# Harm


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, content=b"", more=b""):
    """A PNG whose header claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(content))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + data + chunk(b"IEND", b"")


def other(kind):
    content = io.BytesIO()
    Image.fromarray(COLOURS).save(content, kind)
    return content.getvalue()


PNG = other("PNG")
JPEG = other("JPEG")
HARM = {
    "bomb": (png(50_000, 50_000), "it claims more than 67,108,864 pixels"),
    "bomb within Pillow's bounds": (png(8193, 8193), "it has 8193 x 8193 pixels"),
    "text that unpacks without end": (
        png(4, 4, bytes(52), chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**27)))),
        "cannot be read as a PNG or JPEG",
    ),
    "no size": (png(0, 0), "cannot be read as a PNG or JPEG"),
    "pixels missing": (png(64, 64, bytes(99)), "cannot be read as a PNG or JPEG"),
    "PNG cut off": (PNG[:-60], "cannot be read as a PNG or JPEG"),
    "JPEG cut off": (JPEG[: len(JPEG) // 2], "cannot be read as a PNG or JPEG"),
    "empty": (b"", "it holds no picture of these kinds"),
    "text": (b"\x1b]0;title\x07 picture", "it holds no picture of these kinds"),
    "GIF": (other("GIF"), "it holds no picture of these kinds"),
    "TIFF": (other("TIFF"), "it holds no picture of these kinds"),
    "EPS, which programs run": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it holds no picture"),
}


@pytest.mark.parametrize("content, words", HARM.values(), ids=HARM.keys())
def test_harm_is_one_line(tmp_path, content, words):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught, warnings.catch_warnings():
        warnings.simplefilter("error")
        picture.read(path, 8, "crop", None)
    said = str(caught.value)
    assert (
        len(said) <= 300 and said.isprintable() and said.endswith("mend it or remove it") and "a.png" in said
    )


def test_damage_anywhere_is_one_line_or_harmless(tmp_path):
    path = tmp_path / "a.png"
    for intact in (PNG, JPEG):
        refused = 0
        for place in range(0, len(intact), 5):
            path.write_bytes(intact[:place] + bytes([intact[place] ^ 0xFF]) + intact[place + 1 :])
            try:
                assert picture.read(path, *WHOLE).dtype == np.uint8
            except UserError as error:
                assert len(str(error)) <= 300 and str(error).isprintable()
                refused += 1
        assert refused > 5


def test_pipes_folders_and_lost_links(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "lost.png").symlink_to(tmp_path / "nowhere.png")
    for name in ("pipe", "folder", "lost", "missing"):
        with pytest.raises(UserError, match=f"{name}.png cannot be read as a PNG or JPEG picture"):
            picture.read(tmp_path / f"{name}.png", *WHOLE)


def test_a_line_is_no_square(tmp_path):
    path = saved(tmp_path, Image.new("L", (1, 101)))
    with pytest.raises(UserError, match="its sides, 1 x 101, differ more than 100 times"):
        picture.read(path, 8, "crop", None)
    assert picture.read(saved(tmp_path, Image.new("L", (1, 100))), 8, "pad", None).shape == (8, 8)


def test_nothing_of_pillow_is_changed(tmp_path):
    from PIL import ImageFile

    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)
    picture.read(saved(tmp_path, Image.fromarray(COLOURS)), 8, "crop", None)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
