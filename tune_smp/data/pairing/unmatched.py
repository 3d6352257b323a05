"""Problems where a pattern finds nothing: what there is instead, and a pattern that would find it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tune_smp.data.pairing.folders import Request, image_names, sub_folders
from tune_smp.data.pairing.patterns import from_glob, levels
from tune_smp.data.pairing.suggestions import suggest
from tune_smp.data.reading.foreign_formats import foreign_by_name, foreign_format
from tune_smp.data.reading.formats import image_suffix, is_zarr
from tune_smp.errors import Problem, SettingsError, listing
from tune_smp.texts import shown

DEEPEST = 4  # levels of folders that are looked into for a suggestion
_LOOKED_INTO = 20  # folders, for a suggestion


def no_match(request: Request, names: Sequence[str]) -> Problem:
    """The problem that no file matches; ``names`` are those at the depth of the pattern."""
    if not any(map(image_suffix, names)):
        return _foreign(request, names) or _further_down(request) or _nothing(request, names)
    suggestion = suggest(request, names, [request.pattern])
    is_glob = suggestion and suggestion == from_glob(request.pattern) != request.pattern
    glob = ": it is a glob, as shells have them, and patterns are regular expressions" if is_glob else ""
    return Problem(
        f"none of {len(names)} file names matches the pattern of the {request.noun}{glob}",
        f"{request.shown}: {listing([shown(name) for name in names], 5)}",
        f'try --{request.noun}Pattern "{suggestion}"' if suggestion else "",
    )


def nothing_readable(request: Request, names: Sequence[str]) -> Problem | None:
    """The problem that every file that matches is of another format."""
    return _foreign(request, names) if all(map(foreign_by_name, names)) else None


def holds_images(folder: Path) -> bool:
    """Whether there is an image right in this folder."""
    try:
        return any(image_suffix(entry.name) for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError:
        return False


def _nothing(request: Request, names: Sequence[str]) -> Problem:
    if not names:
        return Problem(f"there are no files for the {request.noun}", request.shown)
    said = f"none of {len(names)} file names matches the pattern of the {request.noun}, and none is that of an image"
    return Problem(said, f"{request.shown}: {listing([shown(name) for name in names], 5)}")


def _foreign(request: Request, names: Sequence[str]) -> Problem | None:
    """Files of other formats are named as what they are, by the most frequent."""
    found = {name: known for name in names if (known := foreign_format(request.used / name))}
    if not found:
        return None
    (usual, count), *_ = Counter(found.values()).most_common(1)
    of_it = [shown(name) for name, known in found.items() if known == usual]
    return Problem(
        f"there are no images that can be read for the {request.noun}, but {count} files are {usual.name}",
        f"{request.shown}: {listing(of_it, 5)}",
        usual.way_out,
    )


def _further_down(request: Request) -> Problem | None:
    """Images in sub-folders, or fewer levels up, with a pattern that finds them."""
    depth = levels(request.pattern)
    names: list[str] = []
    for further in (*range(depth + 1, depth + 1 + DEEPEST), *range(depth)):
        try:
            names = [name for name in image_names(request, further) if image_suffix(name)]
        except SettingsError:
            break
        if names:
            break
    folders = sub_folders(request.used)
    if not names:
        return _plates(request) if depth else None
    suggestion = suggest(replace(request, pattern=request.pattern), names)
    if further < depth:
        said = f"there are no files for the {request.noun} so many folders down, but {len(names)} further up"
    else:
        said = (
            f"there are no files for the {request.noun} in the folder itself; it has {len(folders)} sub-folders "
            f"({listing([shown(name) for name in folders], 4)}) with {len(names)} images, which are not searched "
            "without a / in the pattern"
        )
    fix = (
        f'use --{request.noun}Pattern "{suggestion}"' if suggestion else 'name the folders, as in "{w}/img_{i:d+}.tif"'
    )
    return Problem(said, request.shown, fix)


def _plates(request: Request) -> Problem | None:
    plates = [name for name in image_names(request) if is_zarr(request.used / name)]
    if not plates:
        return None
    fix = f'fields of a plate are --{request.noun}Pattern "{{p}}.zarr/{{row:c+}}/{{column:d+}}/{{field:d+}}"'
    return Problem(f"the pattern does not match the fields of {len(plates)} OME-Zarr folders", request.shown, fix)
