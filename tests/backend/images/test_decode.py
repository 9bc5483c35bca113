from __future__ import annotations

import random
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from torchvision.transforms.v2.functional import resize

from cdal.backend.errors import ImageError
from cdal.backend.images import decode as module
from cdal.backend.images.decode import decode, inspect

MAX = 80_000_000
COLOURS = [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[0, 0, 0], [255, 255, 255], [12, 34, 56]]]


def picture(pixels: Any, mode: str | None = None) -> Image.Image:
    dtype = np.uint16 if mode == "I;16" else np.float32 if mode == "F" else np.uint8
    image = Image.fromarray(np.array(pixels, dtype))
    if mode is not None:
        image = image if image.mode == mode else Image.frombytes(mode, image.size, image.tobytes())
    return image


def encode(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def pixels_of(data: bytes) -> Any:
    """Rows of [red, green, blue]."""
    inspect(data, MAX)
    image = decode(data)
    assert image.dtype == torch.uint8
    assert image.shape[0] == 3
    return image.permute(1, 2, 0).tolist()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def paletted(transparency: int | None = None) -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def animation(format_: str, **options: Any) -> bytes:
    frames = [Image.new("RGB", (2, 1), colour) for colour in ("red", "lime", "blue")]
    return encode(frames[0], format_, save_all=True, append_images=frames[1:], **options)


RED, BLUE, WHITE = [255, 0, 0], [0, 0, 255], [255, 255, 255]
# Red over white at 128/255: 255, and (1 - 128/255)·255 = 127.
PINK = [255, 127, 127]
CLEAR = [[[255, 0, 0, 255], [255, 0, 0, 128], [255, 0, 0, 0]]]
GREY_16 = picture([[0, 255, 256, 32768, 65535]], "I;16")
GREYS = [[[v, v, v] for v in (0, 0, 1, 128, 255)]]

EXACT = {
    "png": (encode(picture(COLOURS), "PNG"), COLOURS),
    "png, 16-bit colours": (
        # Pillow writes no such file: a 1x2 RGB PNG by hand, samples 0x1234, 0xFF00, 0x00FF.
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in [
                (b"IHDR", struct.pack(">IIBBBBB", 1, 2, 16, 2, 0, 0, 0)),
                (b"IDAT", zlib.compress(b"\0\x12\x34\xff\x00\x00\xff" + b"\0" + b"\xff" * 6)),
                (b"IEND", b""),
            ]
        ),
        [[[0x12, 0xFF, 0x00]], [WHITE]],
    ),
    "png, grey": (encode(picture([[0, 7, 255]]), "PNG"), [[[0] * 3, [7] * 3, [255] * 3]]),
    "png, 16-bit grey": (encode(GREY_16, "PNG"), GREYS),
    "png, 1-bit": (encode(Image.new("1", (1, 1), 1), "PNG"), [[WHITE]]),
    "png, palette": (encode(paletted(), "PNG"), [[RED, BLUE]]),
    "png, palette with a clear colour": (
        encode(paletted(), "PNG", transparency=0),
        [[WHITE, BLUE]],
    ),
    "png, alpha": (encode(picture(CLEAR), "PNG"), [[RED, PINK, WHITE]]),
    "png, grey and alpha": (
        encode(picture([[[0, 255], [0, 128], [0, 0]]], "LA"), "PNG"),
        [[[0, 0, 0], [127, 127, 127], WHITE]],
    ),
    "png, a clear colour": (
        encode(picture([[RED, BLUE]]), "PNG", transparency=(255, 0, 0)),
        [[WHITE, BLUE]],
    ),
    "png, 16-bit grey and a clear value": (
        encode(GREY_16, "PNG", transparency=0),
        None,  # checked by itself below
    ),
    "png, animated": (animation("PNG"), [[RED, RED]]),
    "gif": (encode(paletted(), "GIF"), [[RED, BLUE]]),
    "gif, a clear colour": (encode(paletted(), "GIF", transparency=0), [[WHITE, BLUE]]),
    "gif, animated": (animation("GIF"), [[RED, RED]]),
    "webp": (encode(picture(COLOURS), "WEBP", lossless=True), COLOURS),
    "webp, alpha": (encode(picture(CLEAR), "WEBP", lossless=True), [[RED, PINK, WHITE]]),
    "webp, animated": (animation("WEBP", lossless=True), [[RED, RED]]),
    "bmp": (encode(picture(COLOURS), "BMP"), COLOURS),
    "bmp, grey": (encode(picture([[0, 7]]), "BMP"), [[[0] * 3, [7] * 3]]),
    "tiff": (encode(picture(COLOURS), "TIFF"), COLOURS),
    "tiff, compressed": (encode(picture(COLOURS), "TIFF", compression="tiff_lzw"), COLOURS),
    "tiff, 16-bit grey": (encode(GREY_16, "TIFF"), GREYS),
    "tiff, alpha": (encode(picture(CLEAR), "TIFF"), [[RED, PINK, WHITE]]),
    "tiff, cmyk": (
        encode(picture([[[0, 255, 255, 0], [0, 0, 0, 255]]], "CMYK"), "TIFF"),
        [[RED, [0, 0, 0]]],
    ),
    "tiff, pages": (
        encode(
            picture([[RED]]), "TIFF", save_all=True, append_images=[Image.new("RGB", (5, 5))]
        ),
        [[RED]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("band", [1, 2**21])
@pytest.mark.parametrize("kind", [kind for kind, (_, pixels) in EXACT.items() if pixels])
def test_exact_pixels(kind: str, band: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether in one piece or band by band, as large images are."""
    monkeypatch.setattr(module, "_BAND_PIXELS", band)
    data, pixels = EXACT[kind]
    assert pixels_of(data) == pixels


def test_16_bit_grey_and_a_clear_value_is_decoded() -> None:
    [row] = pixels_of(EXACT["png, 16-bit grey and a clear value"][0])
    assert row[1:] == GREYS[0][1:]


@pytest.mark.parametrize(
    ("mode", "colour", "pixel"),
    [
        ("L", 100, [100, 100, 100]),
        ("RGB", (100, 100, 100), [100, 100, 100]),
        ("CMYK", (0, 0, 0, 155), [100, 100, 100]),
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_of_one_grey(mode: str, colour: Any, pixel: list[int], progressive: bool) -> None:
    """A JPEG of one grey is exact, since only its mean is not zero."""
    image = Image.new(mode, (9, 5), colour)
    data = encode(image, "JPEG", quality=100, progressive=progressive)
    assert pixels_of(data) == [[pixel] * 9] * 5


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_jpeg_as_pillow_decodes_it(mode: str) -> None:
    """Two decoders of one format, independent but for the inverse transform's rounding."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, len(mode)), dtype=np.uint8)
    data = encode(picture(noise, mode), "JPEG", quality=100, subsampling=0)
    ours = np.array(pixels_of(data), dtype=int)
    theirs = np.asarray(Image.open(BytesIO(data)).convert("RGB"), dtype=int)
    assert np.abs(ours - theirs).max() <= 2


def test_avif() -> None:
    [[pixel]] = pixels_of(encode(picture([[[0, 0, 0]]]), "AVIF", quality=100))
    assert max(pixel) <= 2


# The picture 1 2 3 / 4 5 6 (times 40) as each orientation says that it is to be shown.
UPRIGHT = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


def six_blocks(format_: str, **options: Any) -> bytes:
    # Blocks of 16 by 16, the unit in which a JPEG of constant blocks is exact.
    stored = np.kron(np.array([[1, 2, 3], [4, 5, 6]]) * 40, np.ones((16, 16)))
    image = picture(np.repeat(stored[..., None], 3, axis=2))
    lossy = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
    return encode(image, format_, **lossy.get(format_, {}), **options)


def shown(data: bytes) -> Any:
    return (np.array(pixels_of(data))[8::16, 8::16, 0] / 40).round().astype(int).tolist()


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "TIFF", "AVIF"])
def test_upright(format_: str, orientation: int) -> None:
    """Pillow writes an AVIF's orientation as the irot and imir that browsers read."""
    assert shown(six_blocks(format_, exif=exif(orientation))) == UPRIGHT[orientation]


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_webp_is_not_turned(orientation: int) -> None:
    """No browser heeds a WebP's EXIF, so people draw on the image as it is stored."""
    assert shown(six_blocks("WEBP", exif=exif(orientation))) == UPRIGHT[1]


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_xmp_is_ignored(format_: str) -> None:
    xmp = (
        b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    options: dict[str, Any] = {"xmp": xmp}
    if format_ == "PNG":
        note = PngImagePlugin.PngInfo()
        note.add_itxt("XML:com.adobe.xmp", xmp.decode())
        options = {"pnginfo": note}
    data = six_blocks(format_, **options)
    assert b"tiff:Orientation" in data
    assert shown(data) == UPRIGHT[1]
    assert module.decode_small(data, 24).shape == decode(data).shape


def tiff(orientation: int, kind: int = 3, count: int = 1, big: bool = False) -> bytes:
    """EXIF with nothing but an orientation; the kind of number is 3 for 16 bits."""
    order = ">" if big else "<"
    value = struct.pack(f"{order}H2x" if kind == 3 else f"{order}I", orientation)
    head = (b"MM\0*" if big else b"II*\0") + struct.pack(f"{order}IH", 8, 1)
    return head + struct.pack(f"{order}HHI", 0x112, kind, count) + value + bytes(4)


def with_segments(*contents: bytes) -> bytes:
    """A JPEG that begins with these APP1 segments."""
    data = six_blocks("JPEG")
    made = b"".join(b"\xff\xe1" + struct.pack(">H", len(c) + 2) + c for c in contents)
    return data[:2] + made + data[2:]


def with_chunk(content: bytes, before: bytes) -> bytes:
    """A PNG with an eXIf chunk before another chunk."""
    data = six_blocks("PNG")
    at = data.index(before) - 4
    chunk = b"eXIf" + content
    length, checksum = (number.to_bytes(4) for number in (len(content), zlib.crc32(chunk)))
    return data[:at] + length + chunk + checksum + data[at:]


XMP = b"http://ns.adobe.com/xap/1.0/\0<x/>"
EXIF = b"Exif\0\0"


@pytest.mark.parametrize(
    ("data", "orientation"),
    [
        (with_segments(XMP, EXIF + tiff(6)), 6),
        (with_segments(b"", EXIF + tiff(8, big=True)), 8),
        (with_segments(EXIF + tiff(6), EXIF + tiff(3)), 6),
        (with_segments(EXIF + tiff(6, kind=4)), 1),
        (with_segments(EXIF + tiff(6, count=2)), 1),
        (with_segments(EXIF + tiff(9)), 1),
        (with_chunk(tiff(6), b"IDAT"), 6),
        (with_chunk(tiff(6, kind=4), b"IDAT"), 1),
        (with_chunk(EXIF + tiff(6), b"IDAT"), 1),
        (with_chunk(tiff(6), b"IEND"), 1),
    ],
)
def test_exif_is_read_as_strictly_as_browsers_do(data: bytes, orientation: int) -> None:
    """Each was seen in Chromium 156. An image that is turned otherwise has its boxes beside its
    objects.
    """
    assert shown(data) == UPRIGHT[orientation]
    assert module.decode_small(data, 24).shape == decode(data).shape


def test_exif_in_a_pngs_text_is_ignored() -> None:
    """ImageMagick writes it there; browsers read the chunk eXIf alone."""
    content = exif(6).tobytes()
    note = PngImagePlugin.PngInfo()
    note.add_text("Raw profile type exif", f"\nexif\n{len(content):8}\n{content.hex()}\n")
    assert shown(six_blocks("PNG", pnginfo=note)) == UPRIGHT[1]


# --- What is no image, or not to be borne


def inspected(data: bytes, max_pixels: int) -> torch.Tensor:
    inspect(data, max_pixels)
    return decode(data)


def reason(data: bytes, max_pixels: int = MAX) -> str:
    with pytest.raises(ImageError) as refused:
        inspected(data, max_pixels)
    return refused.value.reason


WEB_PAGE = "The address returns a web page, perhaps a login page, instead of an image."
DRAWING = "The image is an SVG drawing, which has no pixels."
NOT_READ = "The file is not an image in a supported format (JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF)."


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "The image is empty: it has zero bytes."),
        (b"<!DOCTYPE html><title>Log in</title>", WEB_PAGE),
        (b"\n  <html><body>", WEB_PAGE),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", DRAWING),
        (b"<?xml version='1.0'?><svg/>", DRAWING),
        (b'{"detail": "Not found."}', NOT_READ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NOT_READ),  # Ghostscript stays out
        (b"\0" * 100, NOT_READ),
        (b"P6 1 1 255 abc", NOT_READ),
    ],
)  # fmt: skip
def test_what_is_not_an_image(data: bytes, sentence: str) -> None:
    assert reason(data) == sentence


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_truncated(format_: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encode(picture(noise), format_)
    for length in (len(data) // 2, len(data) - len(data) // 8):
        assert reason(data[:length]) in (
            "The image is damaged or incomplete.",
            "The image is damaged: its header cannot be read.",
            NOT_READ,
        )


@pytest.mark.parametrize("mode", ["F", "I"])
def test_32_bit_samples(mode: str) -> None:
    data = encode(Image.new(mode, (2, 2)), "TIFF")
    assert reason(data) == "The image has 32-bit samples, which have no agreed range."


def large(format_: str, width: int, height: int) -> bytes:
    """A small file whose header claims a size."""
    data = bytearray(encode(Image.new("RGB", (1, 1)), format_))
    if format_ == "PNG":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif format_ == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    elif format_ == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    else:
        marker = data.index(b"\xff\xc0")
        data[marker + 5 : marker + 9] = struct.pack(">HH", height, width)
    return bytes(data)


@pytest.mark.parametrize("format_", ["PNG", "GIF", "BMP", "JPEG"])
def test_bombs_are_refused_by_their_header(format_: str) -> None:
    assert reason(large(format_, 9000, 9000)) == (
        "The image has 9,000 x 9,000 pixels; at most 80,000,000 are allowed."
    )
    assert reason(large(format_, 50_000, 50_000)) == "The image has too many pixels."


def test_the_limit_itself_is_allowed() -> None:
    data = encode(Image.new("RGB", (10, 10)), "PNG")
    inspect(data, 100)
    assert reason(data, 99) == "The image has 10 x 10 pixels; at most 99 are allowed."


NOISE = np.random.default_rng(1).integers(0, 256, (20, 20, 4), dtype=np.uint8)
WHOLE = {kind: data for kind, (data, _) in EXACT.items()} | {
    "jpeg": encode(picture(NOISE[..., :3]), "JPEG", exif=exif(6)),
    "jpeg, progressive": encode(picture(NOISE[..., :3]), "JPEG", progressive=True),
    "jpeg, cmyk": encode(picture(NOISE, "CMYK"), "JPEG"),
    "avif": encode(picture(NOISE[..., :3]), "AVIF"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_damaged_files_raise_nothing_else(kind: str) -> None:
    data = WHOLE[kind]
    dice = random.Random(kind)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(dice.randrange(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        if dice.random() < 0.2:
            del damaged[dice.randrange(len(damaged)) :]
        try:
            image = inspected(bytes(damaged), 1_000_000)
        except ImageError:
            continue
        assert image.dtype == torch.uint8
        assert image.ndim == 3
        assert image.shape[0] == 3


@pytest.mark.parametrize(("orientation", "size"), [(1, (150, 200)), (6, (200, 150))])
def test_a_large_jpeg_is_decoded_smaller_for_a_small_picture(
    orientation: int, size: tuple[int, int]
) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    image = Image.linear_gradient("L").resize((800, 600)).convert("RGB")
    data = encode(image, "JPEG", quality=95, exif=tags)
    small = module.decode_small(data, 60)
    assert small.shape[1:] == size  # a quarter of each side, and no less than twice what is needed
    whole = resize(decode(data), list(size), antialias=True)
    assert (small.float() - whole.float()).abs().mean() < 1


def test_other_formats_are_decoded_whole_for_a_small_picture() -> None:
    data, pixels = EXACT["webp"]
    assert module.decode_small(data, 1).permute(1, 2, 0).tolist() == pixels


@pytest.mark.parametrize("data", [b"\xff\xd8\xff", encode(picture(COLOURS), "JPEG")[:-30]])
def test_a_damaged_jpeg_is_refused_for_a_small_picture(data: bytes) -> None:
    with pytest.raises(ImageError):
        module.decode_small(data, 8)


def tiled_tiff(side: int, tile: int) -> bytes:
    """A TIFF of black pixels in one compressed tile, which may be larger than the image."""
    packer = zlib.compressobj()
    pixels = b"".join(packer.compress(bytes(3 * tile)) for _ in range(tile)) + packer.flush()
    pixels += bytes(len(pixels) % 2)
    short, long, at = 3, 4, 16
    entries = [
        (256, long, 1, side),
        (257, long, 1, side),
        (258, short, 3, 8),
        (259, short, 1, 8),
        (262, short, 1, 2),
        (277, short, 1, 3),
        (322, long, 1, tile),
        (323, long, 1, tile),
        (324, long, 1, at),
        (325, long, 1, len(pixels)),
    ]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = b"II*\0" + struct.pack("<IHHHH", at + len(pixels), 8, 8, 8, 0)
    return start + pixels + struct.pack("<H", len(entries)) + directory + bytes(4)


def test_a_tile_that_is_larger_than_its_image_counts_as_what_it_takes() -> None:
    small, large = tiled_tiff(16, 16), tiled_tiff(16, 512)
    for data in (small, large):
        assert decode(data).shape == (3, 16, 16)
    memory = [module.memory_to_decode(data) for data in (small, large)]
    assert memory == [2 * 16 * 16 * 12, (16 * 16 + 512 * 512) * 12]
    inspect(large, 512 * 512)
    with pytest.raises(ImageError, match="tiles of 512 x 512 pixels"):
        inspect(large, 512 * 512 - 1)


def test_a_jpeg_in_several_scans_takes_its_coefficients_as_well() -> None:
    image = Image.new("RGB", (16, 16))
    assert module.memory_to_decode(encode(image, "JPEG")) == 16 * 16 * 4
    assert module.memory_to_decode(encode(image.convert("CMYK"), "JPEG")) == 16 * 16 * 4
    assert module.memory_to_decode(encode(image, "JPEG", progressive=True)) == 16 * 16 * 12
    one_of_three = bytearray(encode(image, "JPEG"))
    one_of_three[one_of_three.index(b"\xff\xda") + 4] = 1
    assert module.memory_to_decode(bytes(one_of_three)) == 16 * 16 * 12


@pytest.mark.parametrize(("kind", "upright"), [("JPEG", 4), ("PNG", 12)])
def test_turning_an_image_takes_a_copy(kind: str, upright: int) -> None:
    """Most cameras and phones write the orientation, so it is no exception."""
    image = Image.new("RGB", (16, 16))
    assert module.memory_to_decode(encode(image, kind, exif=exif(1))) == 16 * 16 * upright
    assert module.memory_to_decode(encode(image, kind, exif=exif(6))) == 16 * 16 * (upright + 4)


def test_an_avif_is_decoded_alone_since_its_header_may_lie() -> None:
    data = encode(Image.new("RGB", (64, 64)), "AVIF")
    size = data.index(b"ispe") + 8
    lying = data[:size] + struct.pack(">II", 8, 8) + data[size + 8 :]
    assert decode(lying).shape == (3, 8, 8)  # though its frame is of 64 x 64 pixels
    assert module.memory_to_decode(data) is None
    assert module.memory_to_decode(lying) is None
