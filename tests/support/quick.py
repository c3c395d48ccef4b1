"""XLA's flags for tests, where compiling costs more than running."""

from importlib.metadata import version

_OPTIONS = {"xla_backend_optimization_level": 0}
if version("jaxlib").startswith("0.10."):  # a flag that XLA does not know ends the process
    _OPTIONS["xla_cpu_use_fusion_emitters"] = "false"
XLA_FLAGS = " ".join(f"--{name}={value}" for name, value in _OPTIONS.items())
