"""The part of a report on chains: what `launch.tempered --diagnostics` left in runs' folders."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from study.report import page
from thermo_ebm.run.csvfile import read_csv
from thermo_ebm.run.layout import DIAGNOSTICS

_COLUMNS = {
    "num_steps": "K",
    "temperature": "t",
    "ess": "ESS of l, per chain",
    "ess_latents": "ESS of the worst latent",
    "r_hat": "R-hat of l",
    "r_hat_latents": "R-hat of the worst latent",
    "expected_log_likelihood": "E_t, nats",
    "offset": "from long chains, nats",
    "offset_stderr": "standard error",
    "acceptance": "acceptance",
    "swap_rate": "swaps with the next t",
    "round_trips": "round trips per image",
}
_NOTE = (
    "Chains of training's kind from p0, by their number of steps K: effective sample size and "
    "rank-normalised split R-hat (Vehtari et al. 2021), medians over images; E_t over the chains' "
    "ends, and how far it is from that of the longest chains. Chains that agree have an R-hat of "
    "at most 1.01. Acceptance and swaps are what Metropolis and exchange accept, or would."
)


def read_diagnostics(repetition: Path) -> pd.DataFrame | None:
    """Returns the table in a repetition's folder; None where there is none.

    Raises:
      UserError: naming the file and the line of what cannot be read.
    """
    path = repetition / DIAGNOSTICS
    if not path.exists():
        return None
    found = read_csv(path, tuple(_COLUMNS), text=("kernel",), allow_empty=True)
    return pd.DataFrame(found.columns)


def diagnostics_parts(folders: Sequence[Path]) -> list[page.Part]:
    """Returns a heading and one table for each repetition of some runs that has diagnostics.

    Args:
      folders: of runs.

    Returns:
      The parts; none where nothing was measured.
    """
    parts: list[page.Part] = []
    for folder in folders:
        for repetition in sorted(folder.glob("rep_[0-9]*")):
            if (table := read_diagnostics(repetition)) is not None:
                shown = page.table(table[list(_COLUMNS)], _COLUMNS)
                parts.append(page.Details(f"{folder}, {repetition.name}", [shown]))
    if not parts:
        return []
    heading = page.Heading(2, "Chains: is K enough?", "chains")
    return [heading, page.Paragraph(_NOTE, note=True), *parts]
