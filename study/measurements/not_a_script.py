"""Imported by a program that was run as a script: prints how to run it as a module, and ends it."""

import sys
from pathlib import Path

_program = Path(sys.argv[0]).resolve()
_packages = [folder.name for folder in _program.parents if (folder / "__init__.py").exists()]
_module = ".".join([*reversed(_packages), _program.stem])
print(f"error: {sys.argv[0]} is not a script; run it as: python -m {_module}", file=sys.stderr)
sys.exit(2)
