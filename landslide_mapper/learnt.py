"""What a model has learnt, and what that means for a data set it is measured or trained on."""

from __future__ import annotations

from collections.abc import Sequence

from landslide_mapper.checkpoint import ModelInfo
from landslide_mapper.data.manifest import Dataset
from landslide_mapper.data.names import unique_names
from landslide_mapper.errors import warn


def digests_of(datasets: Sequence[Dataset]) -> dict[str, str]:
    """The digests of data sets by the names of their folders, as `ModelInfo.digests` has them."""
    names = unique_names([dataset.root.resolve().name for dataset in datasets])
    return dict(zip(names, [dataset.digest for dataset in datasets], strict=True))


def learnt_another(info: ModelInfo, dataset: Dataset) -> bool:
    """Whether a training had data sets of this one's name, and none of them was this one."""
    (name,) = digests_of([dataset])
    for training in info.trainings:
        # Names that several folders share are numbered, see `unique_names`.
        then = [value for key, value in training.digests.items() if key.split("~")[0] == name]
        if then and dataset.digest not in then:
            return True
    return False


def learnt(info: ModelInfo, dataset: Dataset) -> bool:
    """Whether a training was on this data set: learnt its train tiles, chose by its val tiles."""
    return any(dataset.digest in it.digests.values() for it in info.trainings)


def learnt_validation(info: ModelInfo, dataset: Dataset) -> bool:
    """Whether a training has learnt the validation tiles of this data set as well."""
    return any(it.final and dataset.digest in it.digests.values() for it in info.trainings)


def warn_of_another(info: ModelInfo, dataset: Dataset, consequence: str) -> None:
    """Say that the model knows another data set of this name, if it does, and what follows."""
    if learnt_another(info, dataset):
        warn(
            f"{dataset.root} is not the data set of this name that {info.name} was trained on: if "
            f"it was prepared anew, {consequence}"
        )
