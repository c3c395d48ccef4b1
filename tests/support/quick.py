"""Settings of XLA, its cache and OpenBLAS for tests, where compiling costs more than running."""

import os
import tempfile
from importlib.metadata import version
from pathlib import Path

_OPTIONS = {"xla_backend_optimization_level": 0}
if version("jaxlib").startswith("0.10."):  # a flag that XLA does not know ends the process
    _OPTIONS["xla_cpu_use_fusion_emitters"] = "false"
    _OPTIONS["xla_cpu_parallel_codegen_split_count"] = 1  # tests already keep all cores busy
XLA_FLAGS = " ".join(f"--{name}={value}" for name, value in _OPTIONS.items())
# Compiled programs, kept between the tests and processes of one user.
_CACHE = Path(tempfile.gettempdir()) / f"thermo_ebm-tests-{os.getuid()}"
ENVIRONMENT = {
    "JAX_COMPILATION_CACHE_DIR": str(_CACHE),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    "OPENBLAS_NUM_THREADS": "1",  # its threads wait for each other at full load
}
