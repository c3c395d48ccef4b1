"""Writes docs/configuration.md: every field of a configuration, its default and its meaning.

python -m docs.tools.configuration

The fields are declared in `thermo_ebm/fields.py`.
"""

import importlib
from pathlib import Path
from typing import Any

from thermo_ebm.fields import FIELDS, flatten

PAGE = Path(__file__).resolve().parents[1] / "configuration.md"
DATA_SETS = (
    "digits",
    "digits_paper",
    "digits_plane",
    "digits_vae",
    "digits_iwae",
    "digits_small",
    "digits_small_linear",
    "cifar10",
    "cifar10_paper",
    "cifar10_small",
    "quality_cifar10",
    "quality_linear",
    "svhn",
    "svhn_paper",
    "pang_svhn",
    "celeb_a",
    "celeb_a_paper",
    "fashion_mnist",
    "fashion_mnist_28",
    "fashion_mnist_paper",
    "fashion_small",
    "folder",
)

HEAD = """# Configuration fields

This page lists every field of a configuration with its default and its meaning. A configuration is
a Python file with a function `get_config()` that returns an `ml_collections.ConfigDict`.
Every field can be changed on the command line, for example `--config.loss.power=3` or
`--config.model.generator.widths="(2, 1)"`.
[Choosing settings](guides/settings.md) gives recommendations, and
[The mathematics](mathematics.md) defines the symbols. The last column says whether a field may
change when a run [is resumed](guides/resuming.md). This page is generated from
`thermo_ebm/fields.py` by `python -m docs.tools.configuration`.

| field | default | meaning | may change |
|---|---|---|---|
"""

CHANGES = """
## What each configuration changes

`configs/base.py` holds the paper's sizes. Each file below changes some fields of `configs/base.py`
and keeps the others. `configs/published.py` turns any configuration into the paper's published
form.
"""


def page() -> str:
    """The page's text."""
    rows = [
        f"| `{name}` | {_code(field.default)} | {field.meaning} | {field.on_resume} |"
        for name, field in sorted(FIELDS.items())
    ]
    parts = [HEAD + "\n".join(rows) + "\n", CHANGES]
    for name in DATA_SETS:
        config = importlib.import_module(f"configs.{name}").get_config()
        changed = {
            field: value
            for field, value in sorted(flatten(config).items())
            if value != FIELDS[field].default
        }
        lines = [f"| `{field}` | {_code(value)} |" for field, value in changed.items()]
        parts.append(f"\n### configs/{name}.py\n\n| field | value |\n|---|---|\n")
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def _code(value: Any) -> str:
    return "" if value == "" else f"`{value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
