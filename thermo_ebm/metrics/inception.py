"""FID's InceptionV3, as a user imports it; the network is `networks/inception.py`."""

from thermo_ebm.metrics.networks.inception import features, params_from_torch

__all__ = ["features", "params_from_torch"]
