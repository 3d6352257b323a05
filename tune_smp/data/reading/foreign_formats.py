"""Formats that are not read, and how to turn them into ones that are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_FIJI = "open them in Fiji (File > Import > Bio-Formats) or with bfconvert, and save them as OME-TIFF"
_PICTURE = "convert them to PNG or TIFF, with ImageMagick or Fiji"


@dataclass(frozen=True)
class ForeignFormat:
    """``magic`` are the first bytes from ``offset`` on, where the format has such; suffixes are in lower case."""

    name: str
    suffixes: tuple[str, ...]
    way_out: str
    magic: bytes = b""
    offset: int = 0


FOREIGN_FORMATS = (
    ForeignFormat("GIF pictures", (".gif",), f"{_PICTURE}; a GIF holds 256 colours at most", b"GIF8"),
    ForeignFormat("BMP pictures", (".bmp", ".dib"), _PICTURE, b"BM"),
    ForeignFormat("WebP pictures", (".webp",), _PICTURE, b"WEBP", 8),
    ForeignFormat("JPEG 2000 pictures", (".jp2", ".j2k", ".jpx", ".jpf"), _PICTURE, b"\0\0\0\x0cjP  "),
    ForeignFormat("JPEG XL pictures", (".jxl",), _PICTURE),
    ForeignFormat("HEIF or AVIF pictures", (".heic", ".heif", ".avif"), _PICTURE),
    ForeignFormat("Photoshop files", (".psd", ".psb"), "flatten the layers and export PNG or TIFF", b"8BPS"),
    ForeignFormat("netpbm pictures", (".pgm", ".ppm", ".pbm", ".pnm"), _PICTURE),
    ForeignFormat("Targa pictures", (".tga",), _PICTURE),
    ForeignFormat("PDF documents", (".pdf",), "export the images themselves as PNG or TIFF", b"%PDF"),
    ForeignFormat("SVG drawings", (".svg",), "export them as PNG, in the size of the images"),
    ForeignFormat(
        "NumPy arrays",
        (".npy", ".npz"),
        "write them with tifffile: tifffile.imwrite('a.tif', numpy.load('a.npy'), metadata={'axes': 'YX'})",
        b"\x93NUMPY",
    ),
    ForeignFormat("Zeiss CZI files", (".czi",), _FIJI, b"ZISRAWFILE"),
    ForeignFormat("Zeiss ZVI files", (".zvi",), _FIJI),
    ForeignFormat("Nikon ND2 files", (".nd2",), _FIJI, b"\xda\xce\xbe\x0a"),
    ForeignFormat("Leica LIF files", (".lif", ".xlif", ".lof"), _FIJI, b"\x70\0\0\0"),
    ForeignFormat("Olympus files", (".oib", ".oif", ".vsi", ".oir"), _FIJI),
    ForeignFormat("Imaris files", (".ims",), _FIJI, b"\x89HDF\r\n\x1a\n"),
    ForeignFormat("DeltaVision files", (".dv", ".r3d"), _FIJI),
    ForeignFormat("Hamamatsu files", (".vms", ".vmu", ".dcimg"), _FIJI),
    ForeignFormat("MIRAX slides", (".mrxs",), "export regions as TIFF, with QuPath or OpenSlide"),
    ForeignFormat(
        "HDF5 files",
        (".h5", ".hdf5", ".hdf", ".ilastik"),
        "write each image as TIFF, with Fiji, ilastik's export or h5py and tifffile",
        b"\x89HDF\r\n\x1a\n",
    ),
    ForeignFormat(
        "MATLAB files", (".mat",), "write each image with MATLAB's imwrite, or scipy.io and tifffile", b"MATLAB"
    ),
    ForeignFormat("MRC volumes", (".mrc", ".rec", ".st", ".map"), "convert them with mrc2tif or Fiji"),
    ForeignFormat(
        "DICOM files", (".dcm", ".dicom"), "convert them to TIFF with Fiji or pydicom and tifffile", b"DICM", 128
    ),
    ForeignFormat("NIfTI volumes", (".nii", ".nii.gz"), "convert slices to TIFF, with nibabel and tifffile"),
    ForeignFormat(
        "NRRD or MetaImage volumes", (".nrrd", ".mha", ".mhd"), "convert them to TIFF with Fiji or SimpleITK"
    ),
    ForeignFormat("FITS files", (".fits", ".fit"), "convert them to TIFF with Fiji or astropy and tifffile"),
    ForeignFormat("videos", (".avi", ".mp4", ".mov", ".mkv"), "export the frames as TIFF or PNG, with Fiji or ffmpeg"),
    ForeignFormat(
        "archives",
        (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"),
        "unpack them: files and folders are read",
        b"PK\x03\x04",
    ),
    ForeignFormat(
        "annotations",
        (".json", ".geojson", ".xml", ".txt", ".csv", ".roi"),
        "draw the outlines into label images, with Fiji, QuPath or labelme's and cvat's exports of masks",
    ),
)


def foreign_by_name(name: str) -> ForeignFormat | None:
    """Name the format that the suffix stands for; None for others."""
    return next((one for one in FOREIGN_FORMATS if name.lower().endswith(one.suffixes)), None)


def foreign_format(path: Path) -> ForeignFormat | None:
    """Name the format of the file, by its suffix or else its first bytes; None for others."""
    if by_name := foreign_by_name(path.name):
        return by_name
    try:
        with path.open("rb") as file:
            start = file.read(256)
    except OSError:
        return None
    return next((one for one in FOREIGN_FORMATS if one.magic and start[one.offset :].startswith(one.magic)), None)
