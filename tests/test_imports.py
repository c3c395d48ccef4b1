"""Imports run one way, and importing does nothing: the graph of the whole project from source."""

import ast
import os
import subprocess
import sys
from pathlib import Path

from patience import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("thermo_ebm", "study", "launch", "configs")

# The rooms, from the ground up. A room imports from lower floors alone, and from itself; of equal
# floors neither knows the other.
FLOORS = (
    ("types", "errors", "console", "fields", "scopes", "readings", "configs"),
    ("runtime", "files", "collectives", "randomness", "plugins", "plots", "cholesky"),
    ("models", "thermo"),
    ("sampling",),
    ("losses", "likelihood"),
    ("gradients",),
    ("config", "run", "metrics"),
    ("data",),
    ("cost",),
    ("train",),
    ("evaluation",),
    ("sweep",),
    ("launch",),
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
# Rooms that know little of the rest of the library, whatever stands below them.
ISOLATED = {
    "data": {"types", "errors", "files", "fields", "run", "runtime"},
    "run": {"types", "errors", "files", "fields", "readings", "runtime"},
    "metrics": {"types", "errors", "files", "plugins", "runtime"},
}
WHEEL_NAMES = ("thermo_ebm.configs", "thermo_ebm.launch")
HEAVY = ("tensorflow", "tensorflow_datasets", "torch", "matplotlib", "sklearn", "submitit")
PLAIN = ("configs", "ml_collections")
MATHEMATICS = ("losses", "gradients.noise", "config.checks", "data")


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {
    module_name(p): p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))
}


def imported(tree, package="", modules=SOURCES):
    """Every module that a tree imports, wherever in the file; `package` resolves relative names."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, "relative import from another folder"
            start = package if node.level else ""
            base = ".".join(filter(None, (start, node.module)))
            if base.startswith(
                WHEEL_NAMES
            ):  # the files of these packages are in folders of a clone
                base = base.removeprefix("thermo_ebm.")
            for alias in node.names:
                target = f"{base}.{alias.name}"
                names.add(target if target in modules else base)
                if target in ("absl.flags", "absl.app"):
                    names.add(target)
    return names


def inside(path):
    """The package in which a file's relative imports begin."""
    return ".".join(path.relative_to(ROOT).parts[:-1])


GRAPH = {n: imported(ast.parse(path.read_text()), inside(path)) for n, path in SOURCES.items()}


def part(name):
    """thermo_ebm.models.prior -> models; launch.train -> launch."""
    package, _, rest = name.partition(".")
    return rest.partition(".")[0] if package == "thermo_ebm" else package


def complaint(importer, target, modules=SOURCES):
    """What is wrong with an import inside the library, or None."""
    above, below = part(importer), part(target)
    if not target.startswith("thermo_ebm."):
        return "the library imports a program or the study" if target in modules else None
    if above in (below, ""):  # the package itself is the library's entrance
        return None
    if above in ISOLATED:
        return None if below in ISOLATED[above] else f"{above} knows of {below}"
    return None if FLOOR[below] < FLOOR[above] else f"{above} knows of {below}"


LIBRARY = [name for name in GRAPH if name.startswith("thermo_ebm")]


# Imports that break the rule, each in another way.
WRONG = (
    ("thermo_ebm.types", "thermo_ebm.errors"),
    ("thermo_ebm.models.prior", "thermo_ebm.sampling.kernels"),
    ("thermo_ebm.thermo.integral", "thermo_ebm.sampling.chains"),
    ("thermo_ebm.thermo.moments", "thermo_ebm.train.step"),
    ("thermo_ebm.losses.vanilla", "thermo_ebm.data"),
    ("thermo_ebm.losses.vanilla", "thermo_ebm.config.build"),
    ("thermo_ebm.metrics.fid", "thermo_ebm.models.latent_ebm"),
    ("thermo_ebm.evaluation.evaluate", "study.figures.style"),
    ("thermo_ebm.data", "thermo_ebm.models.generator"),
    ("thermo_ebm.run.tables", "thermo_ebm.losses.settings"),
    ("thermo_ebm.cost.flops", "thermo_ebm.train.step"),
    ("thermo_ebm.train.loop", "thermo_ebm.evaluation.evaluate"),
    ("thermo_ebm.evaluation.evaluate", "thermo_ebm.sweep.cells"),
    ("thermo_ebm.train.loop", "launch.report"),
    ("thermo_ebm.config.checks", "configs.base"),
)


def test_the_graph_is_read():
    assert len(LIBRARY) > 30
    assert "thermo_ebm.sampling.kernels" in GRAPH["thermo_ebm.sampling.chains"]
    assert "launch.program" in GRAPH["launch.train"]
    assert {part(name) for name in LIBRARY} - {""} == FLOOR.keys()


def test_imports_run_one_way():
    complaints = {
        f"{name} imports {target}": message
        for name in LIBRARY
        for target in sorted(GRAPH[name])
        if (message := complaint(name, target))
    }
    assert complaints == {}


def test_imports_the_wrong_way_are_detected():
    programs = dict.fromkeys(("launch.report", "study.figures.style", "configs.base"))
    for importer, target in WRONG:
        assert complaint(importer, target, SOURCES | programs), (importer, target)


def test_imports_have_no_cycle():
    # Removes modules that import nothing that is left, until none is left.
    left = {name: {t for t in targets if t in GRAPH} - {name} for name, targets in GRAPH.items()}
    while left:
        done = {name for name, targets in left.items() if not targets & left.keys()}
        assert done, f"a cycle among {sorted(left)}"
        left = {name: targets for name, targets in left.items() if name not in done}


def test_only_programs_define_flags():
    for name, targets in GRAPH.items():
        flagged = {t for t in targets if t.startswith(("absl.flags", "absl.app", "argparse"))}
        assert not flagged or name.startswith(("launch", "study.measurements", "study.pages")), name


def test_programs_import_at_the_top():
    for name, path in SOURCES.items():
        if name.startswith("launch"):
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef):
                    inner = [
                        n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)
                    ]
                    assert inner == [], f"{name}: {function.name}"


def test_tensorflow_and_torch_are_never_imported():
    for name, targets in GRAPH.items():
        assert not {t.partition(".")[0] for t in targets} & {"tensorflow", "torch", "tf"}, name


def test_configurations_import_only_each_other_and_the_fields():
    for name in GRAPH:
        if name.startswith("configs"):
            outside = {t for t in GRAPH[name] if t != "thermo_ebm.fields"}
            assert {t.partition(".")[0] for t in outside} <= {*sys.stdlib_module_names, *PLAIN}


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_importing_computes_nothing_and_loads_no_heavy_library():
    # With a backend that does not exist, the first computation of any kind raises.
    mathematics = [f"thermo_ebm.{name}" for name in MATHEMATICS]
    code = f"""
import importlib, sys
for name in {mathematics}:
    importlib.import_module(name)
heavy = [name for name in {HEAVY} if name in sys.modules]
assert not heavy, heavy
for name in {LIBRARY}:
    importlib.import_module(name)
heavy = [name for name in ("tensorflow", "torch") if name in sys.modules]
assert not heavy, heavy
print("imported")
import jax
jax.numpy.zeros(1)
"""
    result = python(code, JAX_PLATFORMS="no_such_backend")
    assert result.stdout == "imported\n", result.stderr
    assert "no_such_backend" in result.stderr
