"""The README names every field of the configuration with its default, and the two commands."""

from pathlib import Path

from configs import base
from thermo_ebm.run.configuration import as_json, flatten

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_table_has_every_field_with_its_default():
    fields = flatten(as_json(base.get_config()))
    shown = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    missing = [
        name
        for name, value in shown.items()
        if f"| `{name}` | {f'`{value}`' if value != '' else ''} |" not in README
    ]
    assert missing == []


def test_table_has_no_other_field():
    rows = [line.split("`")[1] for line in README.splitlines() if line.startswith("| `")]
    fields = {row for row in rows if row in flatten(as_json(base.get_config())) or "." in row}
    known = set(flatten(as_json(base.get_config())))
    assert {name for name in fields if "/" not in name and not name.endswith(".py")} <= known


def test_opens_with_the_two_commands():
    opening = README.split("## ")[0]
    assert opening.index("make quickstart") < opening.index("make test")
