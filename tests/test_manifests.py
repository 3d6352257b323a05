"""The generated files say what the program does, in the forms that their readers take, and nothing in them is typed."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tune_smp import __version__
from tune_smp.choices.encoders import ENCODERS
from tune_smp.errors import DataError
from tune_smp.manifests.__main__ import generated_files, write_generated_files
from tune_smp.manifests.cwl import tool
from tune_smp.manifests.ict import ict
from tune_smp.manifests.tables import flag_table, predict_flag_table, search_flag_table, with_tables
from tune_smp.manifests.wipp import plugin
from tune_smp.manifests.yaml_text import yaml_text
from tune_smp.settings.command_line import settings_from
from tune_smp.settings.encoder_choice import choice_problems
from tune_smp.settings.fields import flags_of
from tune_smp.settings.predict import PredictSettings
from tune_smp.settings.run import RunSettings
from tune_smp.settings.search import SearchSettings

# The promise to users and other programs, written down once more: name → type in WIPP, required, default.
PROMISE: dict[str, tuple[str, bool, Any]] = {
    "pretrainedModel": ("genericData", False, None),
    "modelName": ("enum", False, "Unet"),
    "encoderBaseVariantWeights": ("enum", False, "ResNet,resnet34,imagenet"),
    "optimizerName": ("enum", False, "Adam"),
    "batchSize": ("integer", False, None),
    "imagesDir": ("collection", True, None),
    "labelsDir": ("collection", True, None),
    "imagesPattern": ("string", True, None),
    "labelsPattern": ("string", True, None),
    "trainFraction": ("number", False, 0.7),
    "segmentationMode": ("enum", True, None),
    "lossName": ("enum", False, "JaccardLoss"),
    "metricName": ("enum", False, "IoU"),
    "maxEpochs": ("integer", False, 100),
    "patience": ("integer", False, 10),
    "minDelta": ("number", False, 1e-4),
}
CHOICES = {
    "optimizerName": "Adadelta Adagrad Adam AdamW SparseAdam Adamax ASGD LBFGS RMSprop Rprop SGD",
    "segmentationMode": "binary multilabel multiclass",
    "lossName": (
        "JaccardLoss DiceLoss TverskyLoss FocalLoss LovaszLoss SoftBCEWithLogitsLoss SoftCrossEntropyLoss MCCLoss "
        "DiceCELoss DiceFocalLoss"
    ),
    "metricName": "IoU Fscore Accuracy Recall Precision",
    "modelName": "Unet UnetPlusPlus MAnet Linknet FPN PSPNet PAN DeepLabV3 DeepLabV3Plus UPerNet Segformer DPT",
}
FORM = [
    ("Data", ["imagesDir", "labelsDir", "imagesPattern", "labelsPattern", "segmentationMode", "trainFraction"]),
    ("Model", ["pretrainedModel", "modelName", "encoderBaseVariantWeights"]),
    ("Loss and metric", ["lossName", "metricName"]),
    ("Training", ["optimizerName", "batchSize", "maxEpochs", "patience", "minDelta"]),
]

MARKERS = "# x\n<!-- a:begin -->old<!-- a:end -->\ny\n<!-- b:begin --><!-- b:end -->\nz\n"


@pytest.fixture(scope="session")
def schemas() -> Path:
    """The folder of the schemas of WIPP and ICT; absent in a lone clone."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "schemas"
    if not folder.is_dir():
        pytest.skip("the schemas (../shared/schemas) are not beside this clone")
    return folder


# --- what is in the repository --------------------------------------------------------------------------------------


def test_no_generated_file_is_out_of_date(repository: Path) -> None:
    files = generated_files(repository)
    assert {path.name for path in files} == {"plugin.json", "ict.yaml", "tune-smp.cwl", "flags.md", "wipp.md"}
    assert not [path.name for path, text in files.items() if path.read_text("utf-8") != text], "run: make manifests"


def test_writing_mends_what_was_typed_and_leaves_the_rest(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    for path, text in generated_files(repository).items():
        (tmp_path / path.relative_to(repository)).write_text(text, "utf-8")
    (tmp_path / "plugin.json").write_text("{}", "utf-8")
    (tmp_path / "ict.yaml").unlink()
    page = tmp_path / "docs" / "flags.md"
    text = page.read_text("utf-8")
    page.write_text(text.replace("| **`--patience`**", "| **`--pa`**") + "mine\n", "utf-8")
    write_generated_files(tmp_path)
    assert capsys.readouterr().out == "wrote plugin.json\nwrote ict.yaml\nwrote docs/flags.md\n"
    assert json.loads((tmp_path / "plugin.json").read_text("utf-8")) == plugin()
    assert page.read_text("utf-8") == text + "mine\n"
    write_generated_files(tmp_path)
    assert capsys.readouterr().out == ""


def test_the_files_are_read_as_what_was_meant(repository: Path) -> None:
    """By JSON, and by YAML 1.1, which takes more words than 1.2 for something else than text."""
    assert json.loads((repository / "plugin.json").read_text("utf-8")) == plugin()
    assert yaml.safe_load((repository / "ict.yaml").read_text("utf-8")) == ict()
    assert yaml.safe_load((repository / "tune-smp.cwl").read_text("utf-8")) == tool()


# --- plugin.json ----------------------------------------------------------------------------------------------------


def test_the_plugin_keeps_the_promise() -> None:
    manifest = plugin()
    defaults = {field["key"].removeprefix("inputs."): field.get("default") for field in manifest["ui"]}
    told = {row["name"]: (row["type"], row["required"], defaults[row["name"]]) for row in manifest["inputs"]}
    assert PROMISE.items() <= told.items()
    assert len(manifest["inputs"]) == len(told)
    (output,) = manifest["outputs"]
    assert (output["name"], output["type"]) == ("outputDir", "genericData")


def test_the_plugin_offers_all_that_can_be_chosen() -> None:
    offered = {row["name"]: row["options"]["values"] for row in plugin()["inputs"] if row["type"] == "enum"}
    encoders = offered.pop("encoderBaseVariantWeights")
    for name, choices in CHOICES.items():
        assert [value for value in offered[name] if value in choices.split()] == choices.split(), name
    assert {"ResNet,resnet34,imagenet", "ResNet,resnet34,random", "RegNet(x/y),timm-regnetx_002,imagenet"} <= {
        *encoders
    }
    assert not [text for text in encoders if list(choice_problems(text))]
    assert len(encoders) == len(set(encoders)) == sum(1 + len(row.weights) for row in ENCODERS.values())
    assert not [row for row in plugin()["inputs"] if (row["type"] == "enum") != ("options" in row)]


def test_the_plugin_offers_every_encoder_of_old(schemas: Path) -> None:
    rows = list(csv.DictReader((schemas.parent / "encoders.csv").open(encoding="utf-8")))
    offered = next(row for row in plugin()["inputs"] if row["name"] == "encoderBaseVariantWeights")
    old = {
        f"{row['family']},{row['old_name']},{weights}"
        for row in rows
        for weights in (*row["old_weights"].split(), "random")
    }
    assert len(rows) == 113
    assert old - {*offered["options"]["values"]} == set()


def test_the_form_reads_from_top_to_bottom() -> None:
    manifest = plugin()
    *fields, last = manifest["ui"]
    assert last["key"] == "fieldsets"
    assert [(section["title"], section["fields"]) for section in last["fieldsets"]] == FORM
    order = [name for _, names in FORM for name in names]
    assert [row["name"] for row in manifest["inputs"]] == order
    assert [field["key"] for field in fields] == [f"inputs.{name}" for name in order]
    for field in fields:
        assert re.fullmatch(r"[A-Z][a-z ]+", field["title"])
        assert "\n" not in field["description"]
        assert "condition" not in field


def test_the_plugin_says_who_it_is() -> None:
    manifest = plugin()
    assert manifest["version"] == __version__
    assert manifest["containerId"] == f"tune-smp:{__version__}"
    assert manifest["baseCommand"] == ["tune-smp", "train"]
    assert manifest["resourceRequirements"]["gpu"] is True
    assert all(manifest[key] for key in ("name", "title", "description", "author", "repository", "website", "citation"))


def test_the_schema_of_wipp_takes_the_plugin(schemas: Path, repository: Path) -> None:
    schema = json.loads((schemas / "wipp-plugin-schema.json").read_text("utf-8"))
    validator = jsonschema.Draft7Validator(schema)
    manifest = json.loads((repository / "plugin.json").read_text("utf-8"))
    assert [error.message for error in validator.iter_errors(manifest)] == []
    manifest["inputs"][0]["type"] = "folder"
    assert len(list(validator.iter_errors(manifest))) == 1


# --- ict.yaml -------------------------------------------------------------------------------------------------------


def test_the_schema_of_ict_takes_the_tool(schemas: Path, repository: Path) -> None:
    schema = json.loads((schemas / "ict-schema.json").read_text("utf-8"))
    validator = jsonschema.Draft202012Validator(schema)
    manifest = yaml.safe_load((repository / "ict.yaml").read_text("utf-8"))
    assert [error.message for error in validator.iter_errors(manifest)] == []
    manifest["inputs"][0]["type"] = "collection"
    assert len(list(validator.iter_errors(manifest))) == 1


def test_ict_and_wipp_describe_the_same_plugin() -> None:
    manifest, wipp = ict(), plugin()
    kinds = {"collection": "path", "genericData": "path", "enum": "string", "integer": "number"}
    for side in ("inputs", "outputs"):
        told = [(row["name"], row["type"], row["required"]) for row in manifest[side]]
        assert told == [(row["name"], kinds.get(row["type"], row["type"]), row["required"]) for row in wipp[side]]
    lists = {row["name"]: row["options"]["values"] for row in wipp["inputs"] if row["type"] == "enum"}
    fields = {field["key"].partition(".")[2]: field for field in manifest["ui"]}
    assert {name: field["fields"] for name, field in fields.items() if field["type"] == "select"} == lists
    # A select cannot have a default: left blank, it has the program's, and the text beside it says which.
    for name, (kind, required, default) in PROMISE.items():
        if kind == "enum":
            assert fields[name]["optional"] is not required
            assert required or f"default: {default})" in fields[name]["description"]
        else:
            assert fields[name].get("default") == default
    assert fields["batchSize"]["integer"]
    assert not fields["minDelta"]["integer"]


def test_what_registries_of_ict_ask_for_beyond_the_schema() -> None:
    manifest = ict()
    assert len(manifest["name"].split("/")) == 2
    assert re.fullmatch(r"[\w-]+(/[\w-]+)*:[\w.]+", manifest["container"])
    assert all(len(author.split(" ")) == 2 for author in manifest["author"])
    keys = [f"{side}.{row['name']}" for side in ("inputs", "outputs") for row in manifest[side]]
    assert [field["key"] for field in manifest["ui"]] == keys
    # Its two validators disagree on conditions, and no validator knows the type that the schema gives to defaultValue.
    assert not [field for field in manifest["ui"] if "condition" in field]
    assert not [row for row in manifest["inputs"] if "defaultValue" in row]


# --- tune-smp.cwl ---------------------------------------------------------------------------------------------------


def test_cwl_and_wipp_describe_the_same_plugin() -> None:
    described, wipp = tool(), plugin()
    assert described["cwlVersion"] == "v1.2"
    assert described["class"] == "CommandLineTool"
    assert described["baseCommand"] == wipp["baseCommand"]
    assert described["hints"]["DockerRequirement"] == {"dockerPull": wipp["containerId"]}
    rows = {row["name"]: row for row in (*wipp["inputs"], *wipp["outputs"])}
    assert list(described["inputs"]) == list(rows)
    kinds = {"collection": "Directory", "genericData": "Directory", "integer": "int", "number": "double"}
    for name, row in rows.items():
        entry = described["inputs"][name]
        assert entry["inputBinding"] == {"prefix": f"--{name}"}
        values = row.get("options", {}).get("values", [])
        if 0 < len(values) < 30:
            symbols = {"type": "enum", "symbols": values}
            assert entry["type"] == (symbols if row["required"] else ["null", symbols])
        else:
            assert entry["type"] == kinds.get(row["type"], "string") + ("" if row["required"] else "?")


def test_the_cwl_tool_writes_where_it_is_told() -> None:
    described = tool()
    assert described["outputs"]["outputDir"]["outputBinding"] == {"glob": "$(inputs.outputDir.basename)"}
    (staged,) = described["requirements"]["InitialWorkDirRequirement"]["listing"]
    assert staged == {"entry": "$(inputs.outputDir)", "writable": True}


# --- YAML -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        {"a": {"b": [1, {"c": "x", "d": [[1, 2], ["y"]]}, []], "e": {}}, "f": None},
        {"text": ["yes", "1.0", "0x1", "~", "", "a: b", "# no", "'\"\\", "é\n\t", "{i:d+}", "$(x)", "1e-4"]},
        {"numbers": [0, -1, 0.7, 0.0001, True, False]},
    ],
    ids=["nested", "text", "numbers"],
)
def test_yaml_comes_back_as_it_went(value: dict[str, Any]) -> None:
    assert yaml.safe_load(yaml_text(value)) == value


# --- tables ---------------------------------------------------------------------------------------------------------


def test_every_flag_has_a_row() -> None:
    rows = flag_table().splitlines()
    for flag in flags_of(RunSettings):
        name = f"**`{flag.option}`**" if flag.about.wipp else f"`{flag.option}`"
        (row,) = [row for row in rows if row.startswith(f"| {name} |")]
        assert flag.description in row
        assert ("*required*" in row) == flag.required
    assert sum(row.startswith("| **`--") for row in rows) == 17
    for flag in flags_of(SearchSettings):
        assert (f"| `{flag.option}` |" in search_flag_table()) == (flag.field not in RunSettings.model_fields)
    for flag in flags_of(PredictSettings):
        assert f"| `{flag.option}` |" in predict_flag_table()


def test_every_row_has_four_cells() -> None:
    rows = [row for row in flag_table().splitlines() if row]
    assert {row.replace("\\|", "").count("|") for row in rows} == {5}


def test_only_what_is_between_the_markers_changes() -> None:
    text = with_tables(MARKERS, {"a": "| A |\n", "b": "| B |\n"}, file=Path("x.md"))
    assert text == (
        "# x\n<!-- a:begin -->\n\n| A |\n\n<!-- a:end -->\ny\n<!-- b:begin -->\n\n| B |\n\n<!-- b:end -->\nz\n"
    )
    assert with_tables(text, {"a": "| A |\n"}, file=Path("x.md")) == text


@pytest.mark.parametrize("marker", ["<!-- a:begin -->", "<!-- b:end -->"])
def test_a_missing_marker_is_named(marker: str) -> None:
    tables = {"a": "", "b": ""}
    with pytest.raises(DataError, match=marker):
        with_tables(MARKERS.replace(marker, ""), tables, file=Path("x.md"))


# --- docs/wipp.md ---------------------------------------------------------------------------------------------------


def example(repository: Path, language: str) -> str:
    """The one block of this language in docs/wipp.md."""
    (block,) = re.findall(
        rf"^```{language}\n(.*?)^```", (repository / "docs" / "wipp.md").read_text("utf-8"), re.M | re.S
    )
    return str(block)


def test_the_guide_shows_a_command_that_the_program_takes(repository: Path) -> None:
    program, command, *words = shlex.split(example(repository, "sh").replace("\\\n", ""))
    assert [program, command] == plugin()["baseCommand"]
    names = [row["name"] for row in (*plugin()["inputs"], *plugin()["outputs"])]
    assert [word.removeprefix("--") for word in words if word.startswith("--")] == names
    settings = settings_from(RunSettings, words)
    assert settings.output_dir == Path("/data/outputs/65a3/outputDir")
    assert (settings.batch_size, settings.pretrained_model, settings.max_epochs) == (None, None, 100)


def test_the_guide_shows_a_job_that_the_cwl_tool_takes(repository: Path) -> None:
    job = yaml.safe_load(example(repository, "yaml"))
    described = tool()["inputs"]
    optional = {name for name, row in described.items() if "null" in row["type"] or "?" in row["type"]}
    assert described.keys() - optional <= job.keys() <= described.keys()
    values = {name: value["path"] if isinstance(value, dict) else value for name, value in job.items()}
    assert RunSettings.from_flags(values).max_epochs == 20
