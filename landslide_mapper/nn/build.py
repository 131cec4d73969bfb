"""From settings to a network: the one place that knows all architectures."""

from __future__ import annotations

from landslide_mapper.config import ModelConfig
from landslide_mapper.nn.deeplab import DeepLabV3Plus
from landslide_mapper.nn.icssn import ICSSN
from landslide_mapper.nn.mrife import MRIFE
from landslide_mapper.nn.network import Network

NETWORKS: dict[str, type[Network]] = {
    "mrife": MRIFE,
    "deeplabv3plus": DeepLabV3Plus,
    "icssn": ICSSN,
}


def build(config: ModelConfig) -> Network:
    """The network of `config.arch`, at random; equal seeds give equal first encoders in all."""
    network = NETWORKS[config.arch](config)
    if config.prior:
        network.start_at(config.prior)
    return network
