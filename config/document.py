"""Write the generated documentation: ``make docs``.

config/README.md and workflow/schemas/config.schema.json come from pipeline/settings/schema.py, docs/metrics.md from
pipeline/report/columns.py, docs/measurements.md from pipeline/masks/measurements/dictionary.py, docs/models.md from
measurements of every architecture, the table of files in docs/contracts.md from pipeline/base/paths.py. ``--check`` writes nothing; its exit status is 1 if a file is out of date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from inspect import cleandoc
from itertools import groupby
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pipeline.base import paths
from pipeline.commands.models import markdown
from pipeline.masks.measurements.dictionary import DICTIONARY
from pipeline.report.columns import columns
from pipeline.settings.networks import EnsembleConfig, ModelConfig
from pipeline.settings.schema import Settings

ROOT = Path(__file__).parents[1]
README, SCHEMA = ROOT / "config" / "README.md", ROOT / "workflow" / "schemas" / "config.schema.json"
MODELS, METRICS, MEASUREMENTS, CONTRACTS = (
    ROOT / "docs" / f"{name}.md" for name in ("models", "metrics", "measurements", "contracts")
)
_BEGIN, _END = "<!-- paths: written by make docs -->\n", "<!-- end of paths -->\n"

_HEAD = """# Configuration

`config/config.yaml` holds the scientific choices; how jobs run (cores, memory, cluster) is in `profiles/`.
Every key has a default, so that a configuration only needs the keys that differ. An unknown key, a value of the wrong type or out of its
range stops the workflow before the first job, with one line that names it.

After a setting is changed, the stages that use it run again, and those that depend on them. `settle_s`, `batches`, both `memory_mb`
and `prediction.compile` only renew the report; a comment changes nothing.
`snakemake --cores 4 --config 'masks={instances: none}'` overrides a key for one run.

Paths are relative to the project folder, the one that `snakemake` runs in (or `--directory`). Ready configurations are
in `config/examples/`. `make docs` writes this page and `workflow/schemas/config.schema.json` from `pipeline/settings/schema.py`.

```yaml
{example}```
"""

_TAIL = """
## Labels and references

Training labels and references are read in the same way. With `training.kind: instances` the value of a pixel is the id
of its object, 0 is background, and objects become the second class; training puts a one-pixel ridge of background
between touching objects. With `training.kind: classes` it is the value of its class (`training.values`).

Both may also be outlines: GeoJSON as QuPath exports it, an ImageJ ROI (`.roi`), or a set of them (`.zip`), in
pixels of the image file. A pixel belongs to the last outline that contains its centre. With `training.kind: instances` every outline is an object, unless its class is the first of `classes`. With
`training.kind: classes` its class is that of QuPath, or the name of the ROI (`nucleus`, `nucleus-2`), or its group (1 is
the second class). Points and lines are refused.

**Sparse annotation.** With `training.ignored: VALUE`, pixels of that value in a label image, and pixels outside all
outlines of an annotation file, are neither learned nor scored, in training, folds and references; background must then be annotated too.

## A trained network instead of training

```yaml
models:
  unet:
    checkpoint: networks/nuclei/model.safetensors # model.json beside it
```

Training images are then not needed. Everything about the network (architecture, options, classes) comes from its
`model.json`; `classes` in the configuration must be the same, for the metrics.
"""


def readme() -> str:
    """Return the text of config/README.md."""
    example = (ROOT / "config" / "config.yaml").read_text(encoding="utf-8").split("\n", 1)[1]
    return _HEAD.replace("{example}", example) + "".join(_sections(Settings)) + _TAIL


_MODELS = """# Models

Every name can be an `architecture` in the configuration. `slidemill models` prints this table; `make docs`
writes it. All of it is measured: parameters and operations on the network itself, with default options, one channel
and two classes; `context_px` with NaN in the image (`models/base/context.py`).

- **exact**: tiles equal one pass over the whole slide, pixel by pixel. `context_px` is the radius of the receptive
  field; a tile is read with as many pixels around it.
- **blended**: the network uses all of its window (pyramid pooling, image-level pooling, instance or group
  normalization, attention), or depends on its size (up-sampling with aligned corners), so that no halo makes tiles agree. Windows overlap by a quarter and are averaged with Gaussian weights.
  The report shows the *tile mismatch*: the share of pixels in two windows whose labels differ.

`segnet`, `deconvnet` and `unet` with `upsampling: max_unpooling` are exact too, but not continuous: unpooling puts a value where
the largest of four was found. Where two of them are nearly equal, rounding decides, and the value moves by a pixel; so in float32
single labels may differ between two tilings. `snakemake verification` tells how many, and decides in float64.

GFLOPs/Mpx: 10⁹ operations (a multiply-add is two) per 10⁶ pixels of input, halos not counted.

{table}

A width below the published one makes a network quadratically cheaper; ImageNet weights need the published width.
`unet` as published is `width: 64, normalization: none, padding: valid`.

## Weights to start from

`pretrained: imagenet` fills the encoder of `fcn*`, `segnet`, `deconvnet`, `linknet`, `pspnet` and `deeplabv3` with
torchvision's weights. For other than 3 channels, the first kernels are averaged over RGB and scaled so that a grey
image has the same response as in RGB. On a machine without internet access, put the file named in the error into
torch's cache, or give its path. `pretrained` can also name another entry of `models`, whose training then comes first, or a
`model.safetensors`; weights that do not fit (another number of classes) are initialized randomly and named in the log.
`encoder_rate` lowers the learning rate of the encoder; 0 freezes its weights and statistics.

## More architectures

`pip install 'slidemill[zoo]'` adds `smp/ARCHITECTURE/ENCODER`, any of
[segmentation_models_pytorch](https://github.com/qubvel-org/segmentation_models.pytorch), for example
`smp/unetplusplus/resnet34`. Their stride and context are measured too. Exact are, for example, `unet`, `unetplusplus` and `linknet`
with encoders of convolutions (`resnet*`, `mobilenet_v2`, `vgg*`, `densenet*`, `tu-convnext*`); blended are encoders with squeeze and
excitation or attention (`efficientnet-*`, `mit_*`), and the architectures `fpn`, `pspnet`, `deeplabv3`, `deeplabv3plus`, `pan`,
`manet`, `upernet` and `segformer`. Encoders that take images of one size only are refused.

## Ensembles

```yaml
ensembles:
  committee: {members: [unet, segnet]}
  careful: {members: [unet], scales: [0.5, 1, 2], symmetries: all}
```

An ensemble averages the probabilities of its members, each at every scale and under every flip and rotation, and the
[heads](training.md#heads) that all of them have. It is one network in one file, with a stride and a context of its own,
and exact if all members are.

A model with heads has one more channel in its last layer for each; the table is without.
"""


def models_page() -> str:
    """Return the text of docs/models.md."""
    return _MODELS.replace("{table}", "\n".join(markdown()))


_METRICS = """# Metrics

The columns of `results/metrics-all.csv`, in their order; `results/metrics.csv` has those that fit a screen, and
`results/metrics/{model}/{sample}.csv` those that compare a mask with its reference. [results.md](results.md) shows how to read them. `make docs` writes this page. `{class}` stands for each class in the order of `classes`, the first one
(background) included. A is the class in the reference, B in the mask.

## Absent classes

A ratio is empty if its denominator is zero, and a distance is empty if one mask has no boundary:

| class | Dice, Jaccard | precision | recall | distances | surface Dice, boundary IoU |
|---|---|---|---|---|---|
| in both | value | value | value | value | value |
| only in the reference | 0 | empty | 0 | empty | 0 |
| only in the mask | 0 | 0 | empty | empty | 0 |
| in neither | empty | empty | empty | empty | empty |

A mean over classes ignores empty cells.

**The headline is the foreground.** Most pixels of most images are background, and its Dice is high even if every object is missed. So
networks are ranked, trainings stopped and weights kept by `foreground_dice`, the mean Dice of all classes but the first.
`dice_mean` and the other `_mean` columns are over all classes, with the background. A sample with no foreground in reference and mask
has no foreground Dice, and is not part of a ranking.

## How they are computed

All counts are summed over blocks, so that the metrics of a slide larger than memory are exactly those of the whole image.

- **Boundaries** are pixels of a class with a 4-neighbour of another class, or at the edge of the image, as in MONAI.
  Distances are exact, in um if the pixel size is known (`distance_unit`). A distance within 1e-6 of the tolerance is equal to it,
  so that the size of a pixel changes no share. The bands of the boundary IoU are as wide as the tolerance in pixels, rounded half up.
- **Objects** of the mask are those of its image `instances`, as in the table of objects; of the reference, its ids
  (`kind: instances`). Without ids (`masks.instances: none`, `kind: classes`), they are the 4-connected components of each
  class except the first. Objects only match objects of the same class, one to one. Their metrics are pooled over classes:
  panoptic quality is one of all objects, not the mean of one per class.
- **Partitions** (adapted Rand error, variation of information) are over the pixels of true objects, as in the ISBI 2012
  challenge; predicted background there is one region.
- **Pixels without annotation** (`training.ignored`, also in references) are in no metric, whatever is predicted there;
  `pixels_ignored` is their number. They have no boundary, and none lies beside them: an object that they cut goes on there. A
  distance to a boundary that nobody drew is not known, so distances near them can be too large. Of a true object, only what
  is annotated is compared. A predicted object is compared in its annotated pixels; if it has no partner and more than half
  of its pixels are not annotated, it is no false object (`objects_ignored`), as with the "void" pixels of panoptic quality
  (Kirillov et al. 2019). `pixels` and `pixels_predicted_{class}` are of the whole slide.
- **Probabilities** are evaluated with `prediction: {probabilities: true}`, on the float16 values that are kept.

Checked in the tests against scikit-learn (overlap, average precision), stardist (objects), scikit-image (partitions), MONAI
and SciPy (surfaces), each on 200 random pairs with empty, full and single-pixel masks among them.

## A cohort

Ten fields of one animal do not count as ten animals: in each number here a group counts once, with the mean over its samples.
Groups come from `config/samples.csv` (columns `sample`, `group`); without it, every sample is a group.

- `results/cohort.csv` has mean, median and a 95 % interval of the mean per model, measure and class. The interval is that
  of Student's t over groups, cut at 0 and 1, and empty for one group. With few groups it is wide: for 2 groups 12.7
  standard errors to each side, for 5 it is 2.8, for 20 it is 2.1.
- `results/paired.csv` compares every two models on the samples that both have a score for: the median difference, and
  Wilcoxon's signed-rank test. Differences below 1e-12 are rounding, and count as none. With fewer than six groups, p cannot
  be below 0.05.

How often the interval contains the true mean, in simulations with groups of 1 to 8 samples:

| groups | 2 | 3 | 4 | 5 | 8 | 12 | 20 |
|---|---|---|---|---|---|---|---|
| normal scores | 95.0 % | 95.1 % | 95.1 % | 95.1 % | 95.0 % | 95.1 % | 95.1 % |
| skewed scores (beta 8, 2) | 94.2 % | 93.5 % | 93.3 % | 93.4 % | 93.8 % | 94.0 % | 94.4 % |

If a few groups fail while all others are good, no interval from few groups is right: look at the dots of each sample.

## Flags

`flags` says why a sample is doubtful: what its file says and was not followed, pixels that are not in the file, a pixel size that is
not that of the training ([inputs.md](inputs.md)), and these comparisons, of which the last two need a reference. A value is an outlier if it is more than four robust deviations from the median of
the values that it is compared with, and outside of their range by more than a tenth of it.

| compared | with |
|---|---|
| brightness, contrast, skewness of intensities, sharpness, saturated pixels, content, colour | the training images (from n < 8 of them, a slide must be 1 + 2/n times as far away); without any, the other slides |
| objects per mm², their median area in µm² | the other slides of the model with a known pixel size, if there are at least eight |
| objects per Mpx, their median area in px | if the pixel size is not known: the other slides without one, if there are at least eight |
| share of uncertain pixels | the other slides of the model, if there are at least eight |
| tile mismatch | 2 % |
| share of uncertain pixels | 40 % |
| foreground and objects per area of the reference | the other references, if there are at least eight |
| share of the pixels with the class of the reference | 50 %: below it, the reference may be inverted, or of another image |

Sharpness is the energy of the Laplacian relative to the contrast; content is the share of 16 px squares that show more
than noise. Up to 16 windows of 512 px of a slide are measured. A slide as unusual as one of the training images is not
flagged.

## Columns

| column | meaning |
|---|---|
{table}
"""


def metrics_page() -> str:
    """Return the text of docs/metrics.md."""
    shown = {column.name: column.about.replace("|", "\\|") for column in columns(["{class}"])}
    rows = [f"| `{name}` | {about} |" for name, about in shown.items()]
    return _METRICS.replace("{table}", "\n".join(rows))


_MEASUREMENTS = """# Measurements

The columns of `results/objects/{model}/{sample}.csv` and of `results/objects.csv`, in their order, by the groups of
[`measurements.groups`](../config/README.md#measurements). `make docs` writes this page. Those with a name in QuPath are measurements of
the detections in `results/objects/{model}/{sample}.geojson`, under that name, if they have a value. `{channel}` is a channel that
the network sees, by its number or name as in `image.channels` (in QuPath, `Channel 0` for a number); `{class}` is each class
but the background.

```yaml
measurements:
  groups: [shape, intensity, neighbours]
  neighbour_radius_um: 30
```

Pixels are those of the mask. All are exact on slides of any size: an object across the borders of blocks, or of tiles, has
the measurements that scikit-image's `regionprops` finds in the whole image, and the tests compare 200 random and some real
images. The median of very large objects is the one exception, see there. Memory depends on the block, and on the number of
objects: about 8 bytes for each number in the table.

Lengths in µm are empty if the sides of a pixel differ by more than 0.1 %, since a length then depends on its direction;
`nearest_{class}_um` and the number of neighbours take the two sides as they are.

{tables}
## stains

Hematoxylin, eosin and DAB of RGB slides, by colour deconvolution (Ruifrok and Johnston 2001) as scikit-image's `rgb2hed`: three
more channels named `Hematoxylin`, `Eosin` and `DAB`, with the columns of channels after all others (unit 1):
`mean_intensity_DAB`, and with the group `intensity` also `median_intensity_DAB` and the rest. They need images of 8 or 16 bits per
colour; all three colours are read, also if the network sees fewer.

## Where other programs differ

- **Perimeter**: CellProfiler and scikit-image's `perimeter` count pixels along the boundary, which makes a disc of 40 px 3 % too
  long, its circularity 0.94. Crofton's formula (`perimeter_crofton`) is right within 1 % there
  ([decision 55](decisions/0055-perimeter-by-crofton.md)). QuPath measures the polygon around smoothed or unsmoothed pixels.
- **Solidity and Feret diameters** are those of scikit-image; QuPath takes the corners of the outline instead, which makes small
  objects less solid, and diameters up to a pixel longer.
- **Standard deviation** divides by the number of pixels, as CellProfiler and scikit-image do.
- **Edge**: the pixels of the object with a 4-neighbour outside; CellProfiler counts diagonal neighbours too.
"""


def measurements_page() -> str:
    """Return the text of docs/measurements.md."""
    tables = []
    for group, rows in groupby(DICTIONARY, key=lambda one: one.group):
        tables += [
            f"## {group or 'Always'}\n",
            "| column | unit | QuPath | CellProfiler | meaning |",
            "|---|---|---|---|---|",
        ]
        for one in rows:
            names = (f"`{name}`" if name else "" for name in (one.title, one.cellprofiler))
            tables.append(f"| `{one.column}` | {one.unit} | {' | '.join(names)} | {one.about} |")
        tables.append("")
    return _MEASUREMENTS.replace("{tables}", "\n".join(tables))


# Names in pipeline/base/paths.py. The rules declare only ledgers, and what `verify`, `report` and `finish` write.
_REPORT = (
    "METRICS_TABLE ALL_METRICS COLUMNS SUMMARY ALL_OBJECTS ALL_REGIONS COMPARISON COHORT PAIRED FOLDS FIGURE PAGE "
    "PROVENANCE"
)
_WRITTEN_BY = {
    "the workflow, when a run begins": "SLIDES",
    "the workflow, when a run ends": "DONE",
    "the jobs of networks": "NETWORK_LEDGER",
    "`weigh`": "WEIGHT_MAP",
    "`train`": "NETWORK CARD HISTORY HELD_BACK",
    "`combine`": "NETWORK CARD",
    "`validate`": "VALIDATION",
    "the jobs of batches": "LEDGER",
    "`tile`": "PLAN TISSUE",
    "`predict`": "PREDICTION",
    "`stitch`": "MASK",
    "`objects`": "OBJECTS ANNOTATIONS REGIONS",
    "`evaluate`": "METRICS",
    "`verify`": "VERIFICATION",
    "`report`": _REPORT,
    "`finish`": "FINISHED",
}


def contracts_page() -> str:
    """Return the text of docs/contracts.md with a new table of the files that the stages write."""
    rows = [
        f"| {', '.join(f'`{getattr(paths, name)}`' for name in names.split())} | {writer} |"
        for writer, names in _WRITTEN_BY.items()
    ]
    rows += ["| `results/pictures/{model}/{sample}...` | `objects`, `evaluate`: small pictures for the page |"]
    rows += ["| `logs/...`, `benchmarks/...` | Snakemake, per job: output of the stage; time and memory |"]
    head, _, rest = CONTRACTS.read_text(encoding="utf-8").partition(_BEGIN)
    table = "\n".join(["| path below the project | written by |", "|---|---|", *rows])
    return f"{head}{_BEGIN}{table}\n{_END}{rest.partition(_END)[2]}"


def schema() -> str:
    """Return the JSON schema, for editors that complete and check YAML."""
    content = Settings.model_json_schema()
    for section in [content, *content["$defs"].values()]:
        for part in section["properties"].values():
            part.pop("title", None)  # the key with capital letters
            if "$ref" in part or "additionalProperties" in part:
                part.pop("default", None)  # of a section: its keys have their own
            match part.get("anyOf"):
                case [{"type": str(kind), **limits}, {"type": "null"}]:  # shorter, and clearer in messages of editors
                    del part["anyOf"]
                    part.update(limits, type=[kind, "null"])
    content["title"] = "Slidemill configuration"
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _sections(kind: type[BaseModel], prefix: str = "", title: str = "Top level") -> Iterator[str]:
    keys = {name: field for name, field in kind.model_fields.items() if not _subsection(field.annotation)}
    yield f"\n## {title}\n\n{cleandoc(kind.__doc__ or '')}\n\n| key | default | limits | meaning |\n|---|---|---|---|\n"
    for name, field in keys.items():
        description = (field.description or "").replace("|", "\\|")
        yield f"| `{prefix}{name}` | {_default(field)} | {_limits(kind, name)} | {description} |\n"
    for name, field in kind.model_fields.items():
        if section := _subsection(field.annotation) or _optional_subsection(field.annotation):
            yield from _sections(section, f"{prefix}{name}.", f"`{prefix}{name}`")
        if name == "models":
            yield from _sections(ModelConfig, "models.NAME.", "`models.NAME`")
        if name == "ensembles":
            yield from _sections(EnsembleConfig, "ensembles.NAME.", "`ensembles.NAME`")


def _subsection(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _optional_subsection(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a key holds unless it is null; such a key has a row of its own too."""
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    return next((choice for choice in choices if _subsection(choice)), None)


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, dict) and any(isinstance(part, BaseModel) for part in value.values()):
        return "one `unet`"
    return f"`{json.dumps(value)}`"


def _limits(kind: type[BaseModel], name: str) -> str:
    """Return type and range in a few words, from the JSON schema of the field."""
    described = kind.model_json_schema()["properties"][name]
    choices = [choice for choice in described.get("anyOf", [described]) if choice.get("type") != "null"]
    choice = choices[0]
    if "enum" in choice:
        return ", ".join(f"`{value}`" for value in choice["enum"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {choice[key]:g}" for key, sign in signs.items() if key in choice]
    names = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text"}
    kind_of_json = "object" if "$ref" in choice else choice.get("type", "")
    words = (names | {"array": "list", "object": "mapping"}).get(kind_of_json, "")
    fixed = [f"`{other['const']}`" for other in choices[1:] if "const" in other]
    fixed += ["null"] if len(choices) < len(described.get("anyOf", [described])) else []
    return " or ".join([", ".join([words, *bounds]), *fixed])


def main(arguments: list[str]) -> int:
    """Write or check the files; return the exit status."""
    stale = []
    pages = {
        README: readme,
        SCHEMA: schema,
        METRICS: metrics_page,
        MEASUREMENTS: measurements_page,
        MODELS: models_page,
        CONTRACTS: contracts_page,
    }
    for path, make in pages.items():
        text = make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.relative_to(ROOT))
            if "--check" not in arguments:
                path.write_text(text, encoding="utf-8")
    if stale:
        print("out of date, run `make docs`:" if "--check" in arguments else "written:", *stale)
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
