"""The programs, whose files are those of the folder `launch/` of a clone.

In a wheel that folder is this package, and this file is left out: `thermo_ebm.launch.command` is
the command `thermo-ebm` in both.
"""

from pathlib import Path

__path__[:] = [str(Path(__file__).resolve().parents[2] / "launch")]
