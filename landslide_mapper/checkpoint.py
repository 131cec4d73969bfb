"""Models on disk: safetensors with JSON metadata, and where models are found."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from landslide_mapper.config import OLDER, STRETCHES, ModelConfig, from_dict, to_dict
from landslide_mapper.errors import LsmapError, one_line
from landslide_mapper.staging import whole_file

if TYPE_CHECKING:
    import torch

    from landslide_mapper.nn.network import Network

SCHEMA_VERSION = 1
METADATA_KEY = "lsmap"
SUFFIX = ".safetensors"
RUNS = Path("runs")  # where runs are looked for
BEST, CONFIG, LOG = "best.safetensors", "config.json", "log.csv"  # in the folder of a run
BUNDLED = "bundled"  # in the place of a file: the model that comes with lsmap


@dataclass(frozen=True)
class Learnt:
    """What one training has learnt: `digests` and `final` as in `ModelInfo`."""

    digests: Mapping[str, str]
    final: bool = False


@dataclass(frozen=True)
class ModelInfo:
    """What a model file says about itself.

    Attributes:
        name: how the model is called in outputs.
        model: the network.
        bands: bands of the scene, counted from 1, that the network was trained on.
        radiometry: rule by which scenes become uint8, ``equalize``, ``percentile`` or ``none``.
        tile_size: side of the training tiles in pixels.
        gsd: pixel size of the training data in metres, None where unknown.
        threshold: probability from which a pixel counts as landslide.
        metrics: figures on the validation split at 0.5 before `calibration`, and at `threshold`.
        data: what it was trained on, with licences where known.
        calibration: scale and shift that the logits of training got, so that probabilities are
            the shares of landslide that validation shows; the weights have it in them.
        epoch: epochs behind these weights.
        final: whether it was trained on validation tiles as well; calibration and threshold are
            then those of the run before.
        digests: `Dataset.digest` of what it was trained on, in order, by `unique_names` of the
            folders.
        learnt: the same of the trainings that it goes on from, the first one first.
        created: date, ISO 8601.
        lsmap_version: version that wrote the file.
    """

    name: str
    model: ModelConfig
    bands: tuple[int, ...]
    radiometry: str
    tile_size: int
    gsd: float | None
    threshold: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    data: str = ""
    calibration: tuple[float, float] = (1.0, 0.0)
    epoch: int = 0
    final: bool = False
    digests: Mapping[str, str] = field(default_factory=dict)
    learnt: tuple[Learnt, ...] = ()
    created: str = ""
    lsmap_version: str = ""

    def __post_init__(self) -> None:
        """Reject what no training gives and what would be noticed late or never.

        Raises:
            ValueError, TypeError: a value out of its range, or of another kind.
        """
        bands = [int(band) for band in self.bands]
        sound = {
            "bands": len(bands) == self.band_count and min(bands) >= 1,
            "radiometry": self.radiometry in STRETCHES,
            "tile_size": self.tile_size >= 1,
            "gsd": self.gsd is None or 0 < self.gsd < math.inf,
            "threshold": 0 < self.threshold <= 1,
            "calibration": self.calibration[0] > 0 and math.isfinite(sum(self.calibration)),
        }
        for name, right in sound.items():
            if not right:
                raise ValueError(f"{name} is {getattr(self, name)!r}")

    @property
    def arch(self) -> str:
        """Kind of network."""
        return self.model.arch

    @property
    def band_count(self) -> int:
        """Bands of the input."""
        return self.model.band_count

    @property
    def backbone(self) -> str:
        """Name of the encoder's ResNet."""
        return self.model.backbone

    @property
    def trainings(self) -> tuple[Learnt, ...]:
        """All that was learnt, without what older files do not tell."""
        own = Learnt(self.digests, self.final)
        return self.learnt if not self.digests or own in self.learnt else (*self.learnt, own)

    def to_metadata(self) -> dict[str, str]:
        """The header of the safetensors file."""
        values = dataclasses.asdict(self) | {
            "model": to_dict(self.model),
            "metrics": dict(self.metrics),
            "arch": self.arch,
        }
        return {METADATA_KEY: json.dumps({"schema_version": SCHEMA_VERSION, **values})}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], source: str) -> ModelInfo:
        """Read the header.

        Raises:
            LsmapError: not a model of lsmap, or one of a schema that this version cannot read.
        """
        if METADATA_KEY not in metadata:
            raise LsmapError(f"{source} is not an lsmap model: its header has no lsmap entry")
        damaged = f"{source}: its header is damaged or of another version of lsmap"
        try:
            values = dict(json.loads(metadata[METADATA_KEY]))
        except (ValueError, TypeError) as error:
            raise LsmapError(f"{damaged} ({error})") from error
        version = values.pop("schema_version", None)
        if version != SCHEMA_VERSION:
            raise LsmapError(
                f"{source} has model schema {version}, this lsmap reads {SCHEMA_VERSION}: "
                "update lsmap or train again"
            )
        values.pop("arch", None)  # for other readers; files older than `model.arch` are MRIFE's
        try:
            network = OLDER | dict(values["model"])
            values["model"] = from_dict(ModelConfig, network, source)
            for name in ("bands", "calibration"):
                if name in values:
                    values[name] = tuple(values[name])
            values["learnt"] = tuple(Learnt(**it) for it in values.get("learnt", ()))
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LsmapError(f"{damaged} ({error})") from error

    def measured(self) -> str:
        """In words the landslide IoU that validation has given it at its threshold, if any has."""
        iou = self.metrics.get("landslide_iou_at_threshold", math.nan)
        return "" if math.isnan(iou) else f", landslide IoU {iou:.2f} on validation"

    def threshold_or(self, given: float | None) -> float:
        """The threshold that was asked for, else the model's.

        Raises:
            LsmapError: it is no probability above 0.
        """
        threshold = self.threshold if given is None else given
        if not 0 < threshold <= 1:
            raise LsmapError(f"--threshold {threshold:g}: give a probability above 0, at most 1")
        return threshold


def read_info(path: Path | str) -> ModelInfo:
    """Read what a model file says about itself, without its weights.

    Raises:
        LsmapError: missing, not safetensors, or not a model of lsmap.
    """
    if not Path(path).is_file():
        raise LsmapError(f"model {path} does not exist")
    return ModelInfo.from_metadata(read_header(path), str(path))


def read_header(path: Path | str) -> dict[str, str]:
    """Metadata of a safetensors file, empty where it has none.

    Raises:
        LsmapError: not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise LsmapError(f"{path} is no model: not a safetensors file ({error})") from error


def save_model(
    model: Network,
    info: ModelInfo,
    path: Path,
    half: bool = False,
    calibration: tuple[float, float] = (1.0, 0.0),
) -> None:
    """Write what prediction needs.

    Of MRIFE that is all but the student: the teacher stands for it (section III-D of the paper).

    Args:
        model: the network.
        info: written into the header.
        path: target; appears whole or not at all.
        half: store float16 (half the size, probabilities change by about 1e-3).
        calibration: scale and shift to put into the weights; a model from a file has its own.
    """
    import torch
    from safetensors.torch import save

    from landslide_mapper.nn.calibration import Calibration

    tensors = {}
    for name, tensor in model.prediction_state(Calibration(*calibration)).items():
        shrink = half and tensor.dtype == torch.float32
        tensors[name] = (tensor.half() if shrink else tensor).cpu().contiguous()
    with whole_file(path) as partial:
        partial.write_bytes(save(tensors, metadata=info.to_metadata()))


def load_model(path: Path | str, device: str | torch.device = "cpu") -> tuple[Network, ModelInfo]:
    """Load a network for prediction: float32, evaluation mode, without what training needs.

    Raises:
        LsmapError: not a model of lsmap, or its weights do not fit its header.
    """
    from safetensors.torch import load_file

    from landslide_mapper.nn.build import build

    info = read_info(path)
    model = build(info.model)
    model.drop_training_parts()
    try:
        model.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise LsmapError(f"{path}: the weights do not fit the header: {one_line(error)}") from error
    return model.to(device).eval(), info


def find_model(explicit: str | None, runs: Path = RUNS) -> tuple[Path, str]:
    """Find the model: the given one, else the newest run's best, else the bundled one.

    Args:
        explicit: a model file, the folder of a run, or ``bundled``.
        runs: folder of the runs.

    Returns:
        The file and why it was taken: ``given``, ``newest run`` or ``bundled``.

    Raises:
        LsmapError: the given one does not exist, or there is none at all.
    """
    if explicit == BUNDLED:
        return bundled_model(), "given"
    if explicit is not None:
        path = Path(explicit)
        path = path / BEST if path.is_dir() else path
        if not path.is_file():
            raise LsmapError(
                f"model {path} does not exist; give a model file, the folder of a run that has "
                f"finished an epoch, or {BUNDLED}"
            )
        return path, "given"
    trained = sorted(runs.glob(f"*/{BEST}"), key=lambda path: path.stat().st_mtime_ns)
    if trained:
        return trained[-1], "newest run"
    return bundled_model(), "bundled"


def bundled_model() -> Path:
    """The model that comes with lsmap: inside the installed package, or in a checkout's models/.

    Raises:
        LsmapError: there is none.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "models", package.parent / "models"):
        found = sorted(folder.glob(f"*{SUFFIX}"))
        if found:
            return found[0]
    raise LsmapError("no model is bundled with this installation: give --model FILE")
