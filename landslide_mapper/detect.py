"""``lsmap detect``: landslide polygons of one or more scenes, streamed from pixels to polygons.

A plan says what is to be done; blocks of the scenes are mapped one by one and kept as parts; the
parts are joined to the outputs. A run that was interrupted goes on with the parts it has.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from landslide_mapper import __version__
from landslide_mapper.checkpoint import ModelInfo, find_model
from landslide_mapper.device import choose_device, enough_memory
from landslide_mapper.errors import NothingSeenError, note, warn
from landslide_mapper.geo import blend, remote, vector_formats
from landslide_mapper.geo.blocks import Block, Layout, stacks
from landslide_mapper.geo.fill import Fill, fit_and_look, told
from landslide_mapper.geo.gdal import as_os_error
from landslide_mapper.geo.radiometry import Radiometry
from landslide_mapper.geo.scene import Scene
from landslide_mapper.geo.views import SymmetryAverage
from landslide_mapper.mapping.config import DetectConfig
from landslide_mapper.mapping.join import SMALL, Joined, join_all
from landslide_mapper.mapping.outputs import EXTRAS, check_layer
from landslide_mapper.mapping.plan import ScenePlan, plan_detection
from landslide_mapper.mapping.work import Loader, SceneWork, identify
from landslide_mapper.mapping.workspace import Workspace
from landslide_mapper.predictors import info_of, load_predictor
from landslide_mapper.shell import in_qgis
from landslide_mapper.staging import Staging, writing

SHOWN = 20  # scenes, at most, that QGIS is told to open
# What a part does not depend on, and what it depends on by rounding only (bf16 on CUDA: by up to
# 0.02), so that a run that is out of memory goes on with a smaller batch or on the CPU.
FREE = ("overwrite", "workers", "dask", "scratch", "output", "overlay", "device", "batch_size")


@dataclass(frozen=True)
class DetectReport:
    """What was found and written."""

    landslides: int
    area: float  # m², of all landslides; NaN where the scene has no metres
    megapixels: float
    seconds: float
    polygons: Path
    files: tuple[Path, ...]
    scenes: tuple[str, ...]  # the files among them

    def summary(self) -> str:
        """The result in a few lines, for the terminal."""
        what = "1 landslide" if self.landslides == 1 else f"{self.landslides} landslides"
        area = "" if math.isnan(self.area) else f", {_area(self.area)}"
        speed = self.megapixels / max(self.seconds, 1e-9)
        lines = [
            f"{what}{area}; {self.megapixels:.1f} Mpx in {self.seconds:.1f} s ({speed:.2f} Mpx/s)"
        ]
        return "\n".join([*lines, *(f"  {path}" for path in self.files)])

    def in_qgis(self) -> str:
        """How to see the polygons over the scenes in QGIS."""
        return in_qgis(*self.scenes[:SHOWN], str(self.polygons))


def _area(area: float) -> str:
    return f"{area / 1e6:.3f} km²" if area >= 1e4 else f"{area:.0f} m²"


def detect(config: DetectConfig) -> DetectReport:
    """Find the model, map the landslides of all scenes and write what `config` asks for.

    An interrupted run of the same `config` is resumed. With `workers` or `dask` the pixels
    are worked on elsewhere; the result is the same.

    Raises `LsmapError` for bad options, scenes that do not suit the model and outputs that
    exist, before any work; `LsmapFailure` when the work cannot be finished (disk full). Outputs
    are whole or not there; finished parts are kept for the next try.
    """
    # Workers of a cluster have devices of their own; "auto" is there and need not load torch.
    if not config.dask and config.device != "auto":
        choose_device(config.device)
    path, why = find_model(config.model)
    info = info_of(path)
    threshold = info.threshold_or(config.threshold)
    note(f"model {info.name} ({why}: {path}){info.measured()}, threshold {threshold:.3g}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return _run(config, _Model(info, digest, partial(_load, path, config.device), path))


def detect_with(config: DetectConfig, predict: blend.Predictor, info: ModelInfo) -> DetectReport:
    """`detect` with a predictor that is at hand: any callable from windows to probabilities."""
    name = getattr(predict, "__qualname__", type(predict).__qualname__)
    return _run(config, _Model(info, f"{name} {info}", partial(_itself, predict)))


@dataclass(frozen=True)
class _Model:
    """The predictor of a run, not yet loaded."""

    info: ModelInfo
    identity: str  # says whether parts of an earlier run are of the same model
    load: Loader
    path: Path | None = None  # its file, if it has one


def _load(path: Path, device: str) -> blend.Predictor:
    return load_predictor(path, device)[0]


def _itself(predict: blend.Predictor) -> blend.Predictor:
    return predict


def _run(config: DetectConfig, model: _Model) -> DetectReport:
    started = time.monotonic()
    config = _resolved(config)
    space = Workspace(config.output, config.scratch)
    stopped = space.was_publishing()
    plans = plan_detection(replace(config, overwrite=config.overwrite or stopped), model.info)
    with space:
        plans, works = _seen(config, model.info, plans)
        extras = [path for p in plans for path in (p.mask, p.probability, p.overlay) if path]
        with _failures(config, space):
            run = space.describe(_description(config, model, works))
            works = [replace(work, run=run) for work in works]
            if not config.overwrite:
                space.check_outputs([*vector_formats.outputs(config.output), *extras])
            _map(config, model, works, space)
            space.begin()  # if nothing was left to map
            with Staging(config.output) as staging:
                found = join_all(config, model.info, works, plans, space.store, staging)
                staging.check(config.overwrite or stopped)
                check_layer(config.output)
                space.publishing(staging.targets)
                staging.publish()
        space.clear()
    _say_of_result(config, found)
    frames = [work.layout.frame for work in works]
    return DetectReport(
        landslides=found.landslides,
        area=found.area,
        megapixels=sum(frame.height * frame.width for frame in frames) / 1e6,
        seconds=time.monotonic() - started,
        polygons=config.output,
        files=(config.output, *extras),
        # QGIS takes no URLs, nor names of GDAL's own, from its command line.
        scenes=tuple(p.scene.gdal for p in plans if remote.is_local(p.scene.gdal)),
    )


def _say_of_result(config: DetectConfig, found: Joined) -> None:
    """Say what should make a person look twice at the result."""
    if not found.seen:
        warn("no valid pixel lies in what was asked for, so nothing was mapped")
    if not config.min_area and found.small > max(1, found.landslides / 2):
        note(
            f"{found.small} of {found.landslides} landslides are smaller than {SMALL:g} m², which "
            f"often are specks: --min-area {SMALL:g} leaves them out"
        )


def _resolved(config: DetectConfig) -> DetectConfig:
    """The same with outputs where they are in truth: a link stays one."""
    outputs = {name: getattr(config, name) for name in ("output", *EXTRAS)}
    links = {name: path.resolve() for name, path in outputs.items() if path and path.is_symlink()}
    return replace(config, **links)


def _seen(
    config: DetectConfig, info: ModelInfo, plans: Sequence[ScenePlan]
) -> tuple[list[ScenePlan], list[SceneWork]]:
    """The plans of scenes that have valid pixels, and the work on them.

    Raises:
        NothingSeenError: no scene has any.
    """
    seen, works = list[ScenePlan](), list[SceneWork]()
    filled = list[tuple[Scene, Fill]]()
    for plan in tqdm(plans, "looking at scenes", disable=None, leave=False):
        try:
            radiometry, fill = fit_and_look(plan.scene, info.radiometry)
            works.append(_work(config, info, len(works), plan, radiometry))
        except NothingSeenError as error:
            if plan is plans[-1] and not works:
                raise
            note(f"left out, {error}")
        else:
            seen.append(plan)
            if fill:
                filled.append((plan.scene, fill))
    for line in told(filled):
        warn(line)
    return seen, works


def _work(
    config: DetectConfig, info: ModelInfo, number: int, plan: ScenePlan, radiometry: Radiometry
) -> SceneWork:
    return SceneWork(
        number=number,
        scene=plan.scene.anywhere(),
        layout=Layout(plan.grid, plan.frame),
        aoi=plan.aoi,
        radiometry=radiometry,
        threshold=info.threshold_or(config.threshold),
        shaping=config.shaping,
        mask=plan.mask is not None or config.fill_holes > 0,
        percent=plan.probability is not None,
        shared=plan.shared,
        batch_size=config.batch_size,
    )


def _description(config: DetectConfig, model: _Model, works: Sequence[SceneWork]) -> dict[str, Any]:
    """All that parts depend on, as JSON values. The keys are shown to people, the first ones."""
    chosen = {name: value for name, value in asdict(config).items() if name not in FREE}
    options = {f"--{name.replace('_', '-')}": repr(value) for name, value in chosen.items()}
    scenes = {f"{work.scene.path} ({work.number + 1})": identify(work) for work in works}
    cuts = [[work.layout.rows, work.layout.cols] for work in works]
    own = {"lsmap's version": __version__, "the model": model.identity}
    return own | options | scenes | {"the size of blocks": cuts}  # which follows from the rest


def _map(config: DetectConfig, model: _Model, works: Sequence[SceneWork], space: Workspace) -> None:
    """Make the parts that are missing."""
    done = space.parts()
    todo = [
        (work, [block for block in work.blocks() if work.part_name(block) not in done])
        for work in works
    ]
    if not any(blocks for _, blocks in todo):
        return
    name = config.output.name
    if done:
        note(f"{name}: going on with an unfinished run, {len(done)} parts are there")
    elif changed := space.changed():
        note(f"{name}: starting afresh, as {changed} changed since the run that stopped")
    else:
        space.begin()  # nothing is lost by it
    if config.workers or config.dask:
        _map_on_cluster(config, model, todo, space)
    else:
        _map_here(_loader(config, model.load)(), todo, space)


@dataclass(frozen=True)
class _Symmetric:
    """A loader: the mean over the symmetries of another one's predictor."""

    load: Loader

    def __call__(self) -> blend.Predictor:
        return SymmetryAverage(self.load())


def _loader(config: DetectConfig, load: Loader) -> Loader:
    return _Symmetric(load) if config.tta else load


def _map_here(
    predict: blend.Predictor, todo: Sequence[tuple[SceneWork, list[Block]]], space: Workspace
) -> None:
    pieces = [(work.sized(predict), stack) for work, blocks in todo for stack in stacks(blocks)]
    windows = sum(work.windows(stack) for work, stack in pieces)
    # None: a bar on terminals only.
    with tqdm(total=windows, unit=" windows", disable=None) as bar:

        def advance(count: int) -> None:
            space.begin()  # not before the model has answered: memory may be short
            bar.update(count)

        for work, stack in pieces:
            bar.set_description(work.scene.name)
            work.map_stack(stack, predict, space.store, advance)


def _map_on_cluster(
    config: DetectConfig,
    model: _Model,
    todo: Sequence[tuple[SceneWork, list[Block]]],
    space: Workspace,
) -> None:
    from landslide_mapper.mapping.cluster import KeptModel, map_on_cluster

    load = model.load
    if model.path:  # workers may not see the file
        space.store.write(model.path.name, model.path.read_bytes())
        load = KeptModel(space.store.url, model.path.name, model.identity, config.device)
    loader = _loader(config, load)
    map_on_cluster(config.workers, config.dask, loader, todo, space.store, space.begin)


@contextmanager
def _failures(config: DetectConfig, space: Workspace) -> Iterator[None]:
    """What may happen on the way, as one line that says how to go on."""

    def advice() -> str:
        now = config.batch_size or "chosen by lsmap"
        return f"give a smaller --batch-size ({now} now) or --device cpu{_kept(space)}"

    def go_on() -> str:
        return f"make room or choose another place and run the same command again{_kept(space)}"

    try:
        with writing(config.output, "the results", go_on), as_os_error(), enough_memory(advice):
            yield
    except KeyboardInterrupt:
        if kept := _kept(space):
            note(f"stopped; the same command goes on{kept}")
        raise


def _kept(space: Workspace) -> str:
    try:
        count = len(space.parts())
    except OSError:  # the storage itself has gone
        return ""
    return f"; {count} finished part{'s' * (count != 1)} will be used" if count else ""
