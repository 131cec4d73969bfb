"""What the pipeline around a network costs: lsmap, geoai-py and geodeep on the same scene.

The network is one 1 × 1 convolution (lsmap: the first band / 255), so that nearly all of the
time goes into reading, blending, vectorising and writing. Windows of 512 pixels, an overlap of
25 %, one thread, from the GeoTIFF to the polygons in a file; imports do not count.

Every peer is installed unmodified into an environment of its own. geoai-py's dependencies are
several GB; installed are those that its functions used here import (with what these need).
torch, rasterio, geopandas and scipy are those of the environment that runs this script.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import (
    OVERLAP,
    ROOT,
    THRESHOLD,
    WINDOW,
    ChildFailed,
    available_memory,
    detect_pixels,
    measured,
    print_table,
    run_child,
    smooth_scene,
)

GEOAI, GEODEEP = "geoai-py==0.40.1", "geodeep==0.9.13"
GEOAI_NEEDS = ("leafmap", "rioxarray", "scikit-image", "scikit-learn", "huggingface_hub")
GEODEEP_NEEDS = ("onnxruntime", "onnx", "scipy")
BATCH = 4  # geoai's default
SLOPE = 40.0  # of the logit; steep enough for the threshold to stay where it is in float32
LIMIT = 900  # seconds
SIDE, QUICK, WARM = 16384, 4096, 1024
SHARE = 0.8  # of the memory that is free, as a limit: a peer may fail, the machine may not


# Each takes the scene and a folder for its outputs and returns the number of polygons.


def lsmap(scene: Path, folder: Path) -> int:
    """`detect` with a predictor that looks at one pixel."""
    return detect_pixels(scene, folder / "lsmap.gpkg")


def _convolution(classes: int) -> Any:
    """The logit of landslide, 0 at `THRESHOLD`; for two classes after a logit that is 0."""
    import torch

    torch.set_num_threads(1)
    layer = torch.nn.Conv2d(3, classes, 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[-1, 0] = SLOPE
        layer.bias.zero_()
        layer.bias[-1] = -SLOPE * THRESHOLD
    return layer


def _geoai_polygons(mask: Path, folder: Path) -> int:
    from geoai.utils import raster_to_vector

    return len(raster_to_vector(str(mask), str(folder / "geoai.gpkg"), min_area=0))


def geoai_semantic(scene: Path, folder: Path) -> int:
    """What geoai's `semantic_segmentation` runs, then `raster_to_vector`, as in its examples."""
    from geoai.train import semantic_inference_on_geotiff

    mask = folder / "geoai.tif"
    semantic_inference_on_geotiff(
        _convolution(2), str(scene), str(mask),
        window_size=WINDOW, overlap=OVERLAP, batch_size=BATCH, quiet=True,
    )  # fmt: skip
    return _geoai_polygons(mask, folder)


def geoai_predict(scene: Path, folder: Path) -> int:
    """geoai's newer `predict_geotiff` ("memory-efficient"), then `raster_to_vector`."""
    import torch
    from geoai.inference import predict_geotiff

    mask = folder / "geoai.tif"
    predict_geotiff(
        torch.nn.Sequential(_convolution(1), torch.nn.Sigmoid()), str(scene), str(mask),
        tile_size=WINDOW, overlap=OVERLAP, batch_size=BATCH, verbose=False,
        output_dtype="uint8", output_nodata=0, postprocess_fn=lambda p: p >= 0.5,
    )  # fmt: skip
    return _geoai_polygons(mask, folder)


def geodeep(scene: Path, folder: Path) -> int:
    """`geodeep.segment` to GeoJSON; its median filter cannot be switched off."""
    from geodeep import run

    model = folder / "model.onnx"
    if not model.exists():
        _write_onnx(model)
    text = run(str(scene), str(model), "geojson", classes=["landslide"], max_threads=1)
    (folder / "geodeep.geojson").write_text(text)
    return text.count('"Feature"')


def _write_onnx(path: Path) -> None:
    """One 1 × 1 convolution and a sigmoid, with the metadata that geodeep reads."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[:, 0, 0, 0] = -SLOPE, SLOPE
    bias = np.array([SLOPE * THRESHOLD, -SLOPE * THRESHOLD], np.float32)
    shapes = {"image": (1, 3, WINDOW, WINDOW), "classes": (1, 2, WINDOW, WINDOW)}
    image, classes = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    )
    nodes = [
        helper.make_node("Conv", ["image", "weight", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["classes"]),
    ]
    weights = [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")]
    graph = helper.make_graph(nodes, "pixel", [image], [classes], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9  # onnxruntime reads older ones than onnx writes
    metadata = {
        "model_type": '"Segmentor"',
        "class_names": '{"0": "other", "1": "landslide"}',
        "resolution": "50",
        "tiles_overlap": str(100 * OVERLAP / WINDOW),
        "seg_thresh": "0.5",
        "seg_small_segment": "0",
    }
    helper.set_model_props(model, metadata)
    save(model, path)


WAYS: dict[str, Callable[[Path, Path], int]] = {
    "lsmap": lsmap,
    "geoai semantic_inference_on_geotiff": geoai_semantic,
    "geoai predict_geotiff": geoai_predict,
    "geodeep run": geodeep,
}


def _child(name: str, scene: str, warm: str, folder: str) -> None:
    """Measure one of `WAYS` in this process."""
    limit = int(SHARE * available_memory())
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    way, target = WAYS[name], Path(folder)
    print(json.dumps(measured(lambda: way(Path(scene), target), lambda: way(Path(warm), target))))


def environments(folder: Path) -> dict[str, Path]:
    """The interpreter of each peer; environments that are not there are made."""
    geoai = _environment(folder / "geoai", (GEOAI,), GEOAI_NEEDS)
    geodeep = _environment(folder / "geodeep", (GEODEEP,), GEODEEP_NEEDS)
    found = {name: geoai if name.startswith("geoai ") else geodeep for name in WAYS}
    return found | {"lsmap": Path(sys.executable)}


def _environment(folder: Path, peer: tuple[str, ...], needs: tuple[str, ...]) -> Path:
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    print(f"making {folder}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    # What this interpreter has is found after what the environment itself has.
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    (Path(own) / "reused.pth").write_text(sysconfig.get_path("purelib"))
    pip = [python, "-m", "pip", "install", "-qq"]
    subprocess.run([*pip, *needs], check=True)
    subprocess.run([*pip, "--no-deps", *peer], check=True)
    ready.touch()
    return python


def run(side: int = SIDE, venvs: Path = ROOT / ".venv-peers") -> None:
    """Print the table."""
    interpreters = environments(venvs)
    megapixels = side**2 / 1e6
    rows, failed, ours = [], [], None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scene, warm = smooth_scene(folder, side), smooth_scene(folder, WARM)
        for way, python in interpreters.items():
            try:
                found = run_child(__file__, way, scene, warm, folder, python=python, limit=LIMIT)
            except ChildFailed as error:
                rows.append((way, *"------"))
                failed.append(f"  {way}: {error}")
                continue
            ours = ours or found["cpu"]
            cells = (
                f"{found['cpu'] / megapixels:.4f}",
                f"{found['cpu'] / ours:.2f}",
                f"{found['wall']:.1f}",
                f"{found['base']:.0f}",
                f"{found['peak'] - found['base']:.0f}",
                str(found["result"]),
            )
            rows.append((way, *cells))
    print_table(
        f"pipeline without network, {side} x {side} pixels, windows {WINDOW}, overlap {OVERLAP}, "
        f"polygons written ({GEOAI}, {GEODEEP})",
        ("way", "CPU s/Mpx", "ratio", "wall s", "imports MB", "peak above MB", "polygons"),
        rows,
    )
    print("\n".join(failed), end="\n" * bool(failed))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venvs", type=Path, default=ROOT / ".venv-peers")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} x {QUICK} pixels")
    options = parser.parse_args()
    run(QUICK if options.quick else SIDE, options.venvs.resolve())


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _child(*sys.argv[2:])
    else:
        main()
