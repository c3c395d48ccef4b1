"""The reader of weight files, as a user imports it; the reader is `networks/weights.py`."""

from thermo_ebm.metrics.networks.weights import load_torch_legacy

__all__ = ["load_torch_legacy"]
