"""PNG and JPEG, through Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from tune_smp.data.reading.image_reader import ImageFormat, ImageInfo, ImageReader, undecodable
from tune_smp.errors import DataError, Problem
from tune_smp.texts import shown

# Channels and dtype of the Pillow modes that PNG and JPEG have; alpha is not counted.
_MODES: dict[str, tuple[int, type[np.generic]]] = {
    "1": (1, np.bool_),
    "L": (1, np.uint8),
    "LA": (1, np.uint8),
    "P": (1, np.uint8),
    "PA": (1, np.uint8),
    "I;16": (1, np.uint16),
    "I": (1, np.int32),
    "RGB": (3, np.uint8),
    "RGBA": (3, np.uint8),
}
_EXIF_ORIENTATION = 0x0112


class PictureReader(ImageReader):
    """A PNG or JPEG file. It is decoded whole, at the first ``read``: neither format allows less."""

    def __init__(self, path: Path, plugin: type[PngImageFile | JpegImageFile]) -> None:
        """``plugin`` is Pillow's own: Image.open refuses large images as bombs, and tries other formats too."""
        self._pixels: NDArray[Any] | None = None
        self._file: ImageFile.ImageFile = _open(path, plugin)
        try:
            super().__init__(path, self._describe(path))
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Let go of the file and of the decoded pixels."""
        self._file.close()
        self._pixels = None

    def _describe(self, path: Path) -> ImageInfo:
        mode = self._file.mode
        if mode not in _MODES:
            fix = "convert it to greyscale or RGB"
            raise DataError(Problem(f"images in {mode} are not supported", shown(path), fix))
        channels, dtype = _MODES[mode]
        packing = self._packing()
        # Pillow opens PNG of 16 bits per colour as 8: those go through imagecodecs.
        self._deep = packing.endswith(";16B") and mode != "I;16"
        self._bits = int(packing[2:]) if packing in ("L;2", "L;4") else 8
        width, height = self._file.size
        return ImageInfo(
            channels,
            height,
            width,
            1,
            np.dtype(np.uint16 if self._deep else dtype),
            lossy="JPEG" if self._file.format == "JPEG" else "",
            palette=_palette(self._file),
            alpha=mode in ("LA", "PA", "RGBA") or "transparency" in self._file.info,
            orientation=_orientation(path, self._file),
        )

    def alpha(self, plane: int = 0, y: slice = slice(None), x: slice = slice(None)) -> NDArray[Any] | None:  # noqa: ARG002
        """The region (1, h, w) of the alpha channel, which ``read`` leaves out; None where there is none."""
        if not self.info.alpha:
            return None
        return np.asarray(self._file.convert("RGBA").getchannel("A"))[None, y, x]

    def _packing(self) -> str:
        """How the file packs its pixels, such as ``RGB;16B``."""
        arguments = self._file.tile[0][3] if self._file.tile else None
        return arguments if isinstance(arguments, str) else ""

    def _region(self, plane: int, y: slice, x: slice) -> NDArray[Any]:  # noqa: ARG002  there is one plane
        if self._pixels is None:
            self._pixels = self._decode()
        return self._pixels[:, y, x]

    def _decode(self) -> NDArray[Any]:
        decoded = imagecodecs.png_decode(self.path.read_bytes()) if self._deep else np.asarray(self._file)
        if self._bits < 8:  # Pillow spreads 2 and 4-bit greys over 0…255; label values must stay what they are
            decoded = decoded // (255 // (2**self._bits - 1))
        pixels = decoded.reshape(*decoded.shape[:2], -1)[..., : self.info.channels]  # (H, W, C) without alpha
        return np.moveaxis(pixels, -1, 0)


def _open(path: Path, plugin: type[PngImageFile | JpegImageFile]) -> ImageFile.ImageFile:
    try:
        return plugin(str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise undecodable(path, error) from error


def _palette(file: ImageFile.ImageFile) -> tuple[tuple[int, int, int], ...]:
    colours = (file.getpalette("RGB") or []) if file.mode in ("P", "PA") else []
    return tuple(zip(colours[::3], colours[1::3], colours[2::3], strict=True))


def _orientation(path: Path, file: ImageFile.ImageFile) -> int:
    """From EXIF, of PNG also where it stands behind the pixels: Pillow would decode them to find it."""
    exif = Image.Exif()
    if file.format == "JPEG" or file.info.keys() & {"exif", "Raw profile type exif"}:
        exif = file.getexif()
    elif chunk := _png_chunk(path, b"eXIf"):
        exif.load(b"Exif\0\0" + chunk)
    found = exif.get(_EXIF_ORIENTATION, 1)
    return found if found in range(2, 9) else 1


def _png_chunk(path: Path, kind: bytes) -> bytes:
    """The content of the first chunk of this kind, if any; a chunk is length, kind, content and CRC."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if head[4:] == kind:
                return file.read(length)
            file.seek(length + 4, 1)
    return b""


PNG = ImageFormat("PNG", (".png",), lambda path, _: PictureReader(path, PngImageFile), (b"\x89PNG\r\n\x1a\n",))
JPEG = ImageFormat("JPEG", (".jpg", ".jpeg"), lambda path, _: PictureReader(path, JpegImageFile), (b"\xff\xd8\xff",))
