"""The configurations, whose files are those of the folder `configs/` of a clone.

In a wheel that folder is this package, and this file is left out: `thermo_ebm.configs.digits` is
the same module in both.
"""

from pathlib import Path

__path__[:] = [str(Path(__file__).resolve().parents[2] / "configs")]
