"""The settings of the demonstration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import ConfigDict

from tune_smp.settings.base import Settings
from tune_smp.settings.fields import About
from tune_smp.settings.folders import AbsolutePath


class DemoSettings(Settings):
    """One run on synthetic data; a demo of before in the same folder is replaced."""

    model_config = ConfigDict(validate_default=True)  # the default folder, too, becomes absolute
    command: ClassVar[str] = "demo"

    output_dir: Annotated[
        Path, AbsolutePath, About("Folder for data, model and masks.", "Output", folder="written")
    ] = Path("tune-smp-demo")
