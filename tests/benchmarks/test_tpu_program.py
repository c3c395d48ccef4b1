"""What the compiler for TPUs estimates, read from its text, against sums by hand; topologies."""

from pathlib import Path

import pytest

from benchmarks import tpu_program
from benchmarks.chips import CHIPS, read_topology
from thermo_ebm import scopes
from thermo_ebm.errors import UserError

# Compiled for a v5e chip, reduced to the lines with estimates: a loop of 7 products; a loop of 3
# turns, each with a loop of 5 products; two sums; a conditional with a product in one branch.
TEXT = (Path(__file__).parent / "data" / "compiled_for_tpu.txt").read_text()


def cycles(text=TEXT):
    return tpu_program.estimated_cycles(tpu_program.read_program(text))


def test_cycles_along_the_loops_by_hand():
    assert cycles() == {
        scopes.PRIOR_CHAINS: 7 * (24 + 320),
        scopes.CORRECTION: 100 + 3 * (100 + 5 * (24 + 1248) + 24 + 100),
        scopes.LOSS_AND_GRADIENT: 2 * 2357,
        scopes.UPDATE: 6087,
        tpu_program.OTHER: 2094,
    }


def test_the_computation_of_a_fusion_is_not_counted_again():
    inside = TEXT.replace("sine(%convolution.9)", 'sine(%convolution.9), "estimated_cycles":"999"')
    assert inside != TEXT
    assert cycles(inside) == cycles()


def test_a_conditional_counts_its_longer_branch():
    other = TEXT.replace(
        "ROOT %w.0 = (f32[128,128]{1,0:T(8,128)}) parameter(0)",
        'ROOT %w.0 = (f32[128,128]{1,0:T(8,128)}) fusion(), {"estimated_cycles":"7000"}',
    )
    assert cycles(other)[scopes.UPDATE] == 7000


def test_a_known_trip_count_is_preferred():
    text = TEXT.replace("body=%wide.region_0.2.sunk", 'body=%wide.region_0.2.sunk, {"n":"9"}')
    text = text.replace('{"n":"9"}', 'backend_config={"known_trip_count":{"n":"9"}}')
    assert cycles(text)[scopes.PRIOR_CHAINS] == 9 * (24 + 320)


def test_program_text_that_cannot_be_counted_is_refused():
    for old, new, message in [
        ("ENTRY ", "", "no ENTRY"),
        ("%constant.28 = s32[]{:T(128)} constant(7)", "", "loop while.4 does not say"),
    ]:
        with pytest.raises(ValueError, match=message):
            cycles(TEXT.replace(old, new))


def test_topologies_name_chips_and_machines():
    for text, num_chips, accelerator_type in [
        ("v5e:2x2", 4, "v5litepod-4"),
        ("v5e:8x8", 64, "v5litepod-64"),
        ("v6e:4x4", 16, "v6e-16"),
        ("v4:2x2x1", 4, "v4-8"),
        ("v5p:2x2x2", 8, "v5p-16"),
    ]:
        topology = read_topology(text)
        assert (topology.num_chips, topology.accelerator_type) == (num_chips, accelerator_type)


def test_bad_topologies_are_refused():
    for text, message in [
        ("v9:2x2", "no chip 'v9'; there are v4, v5e, v5p, v6e"),
        ("", "no chip ''"),
        ("v5e", "the shape has 2 axes, as in v5e:2x2"),
        ("v5e:2x2x1", "the shape has 2 axes"),
        ("v5e:0x2", "the shape has 2 axes"),
        ("v4:2x2", "the shape has 3 axes, as in v4:2x2x1"),
    ]:
        with pytest.raises(UserError, match=message) as raised:
            read_topology(text)
        assert str(raised.value).startswith(f"topology={text}: ")


def test_peaks_are_those_of_the_matrix_units():
    for name, units in {"v4": 8, "v5e": 4, "v5p": 8, "v6e": 4}.items():
        side = 256 if name == "v6e" else 128
        chip = CHIPS[name]
        peak = units * side**2 * 2 * chip.clock_hz
        assert peak == pytest.approx(chip.peak_flops, rel=3e-3), name
