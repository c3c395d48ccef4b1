"""The command `thermo-ebm`: its first argument names the program of this folder that it runs.

It imports nothing that takes time before it knows the program.
"""

import difflib
import importlib
import importlib.metadata
import sys

COMMAND = "thermo-ebm"
PROGRAMS = {
    "train": "trains the repetitions of a configuration; continues after any interruption",
    "eval": "FID, KID and other metrics of each checkpoint of a run, with standard errors",
    "sample": "samples, reconstructions and interpolations of a run as pictures",
    "likelihood": "held-out log p(x) of each image with bounds and a verdict",
    "fit_prior": "a new prior for a run whose decoder stays, and what log p(x) gains by it",
    "compare": "the same metrics between any sets of images: folders, files, data sets",
    "plan": "the cheapest settings for a noise of the gradient or a time of training",
    "tempered": "whether the chains of a run are long enough",
    "sweep": "trains and evaluates every cell of an experiment, here or on SLURM",
    "report": "one page with tables, figures and tests of a sweep; needs a clone",
    "fetch_weights": "downloads the weights of FID's InceptionV3 or another network, once",
}
BAD_INPUT = 2  # exit code


def main() -> int:
    """Runs the program that the first argument names; returns the exit code if it never began."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "-?", "help"):
        print(_list_of_programs())
        return 0
    if name == "--version":
        print(COMMAND, importlib.metadata.version(COMMAND))
        return 0
    program_name = name.replace("-", "_")
    if program_name not in PROGRAMS:
        similar = difflib.get_close_matches(program_name, PROGRAMS, 1)
        advice = f"did you mean {similar[0]}?" if similar else f"{COMMAND} --help lists all"
        print(f"error: {COMMAND} {name}: there is no such program; {advice}", file=sys.stderr)
        return BAD_INPUT
    sys.argv = [f"{COMMAND} {program_name}", *arguments]  # before the imports, which look at it
    program = importlib.import_module(".program", __package__)
    module = importlib.import_module(f".{program_name}", __package__)
    program.run(module.main, module.define_flags, getattr(module, "TAKES_ARGUMENTS", False))
    return 0


def _list_of_programs() -> str:
    width = max(map(len, PROGRAMS))
    lines = [f"  {name:{width}}  {purpose}" for name, purpose in PROGRAMS.items()]
    return "\n".join(
        [
            f"usage: {COMMAND} PROGRAM [ARGUMENTS]",
            "",
            *lines,
            "",
            f"{COMMAND} PROGRAM --help describes its flags and exit codes; a first run:",
            "",
            f"  {COMMAND} train --config=digits --workdir=runs/digits --budget=5m",
            f"  {COMMAND} eval --workdir=runs/digits --newest_only",
        ]
    )
