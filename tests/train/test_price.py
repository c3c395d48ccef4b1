"""The price of noise: predictions from prices, and the cheapest setting."""

from types import SimpleNamespace

import numpy as np
import pytest
import tiny_training as tiny

from thermo_ebm.train import price
from thermo_ebm.train.price import ChainPrices, Setting

PRICES = ChainPrices(
    of_image=3.0,
    of_chain=12.0,
    fixed_seconds=0.0,
    image_seconds=0.08,
    chain_seconds=0.02,
    bias={},
    num_train=150,
)
CONFIG = tiny.config(loss__correction="none")


def setting(batch_size, chains):
    return Setting(batch_size, chains, 3, 2)


def test_predictions_by_hand():
    assert PRICES.noise(setting(15, 2)) == pytest.approx(3 * (1 / 15 - 1 / 150) + 12 / 30)
    assert PRICES.seconds(setting(15, 2)) == pytest.approx(15 * (0.08 + 2 * 0.02))
    assert PRICES.best_chains() == pytest.approx(4.0)


@pytest.mark.parametrize("chains", [1, 3, 8])
def test_the_batch_for_a_noise_is_the_smallest(chains):
    batch = PRICES.batch_size(0.2, chains)
    assert PRICES.noise(setting(batch, chains)) <= 0.2 < PRICES.noise(setting(batch - 1, chains))
    assert PRICES.batch_size(1e-6, chains) is None  # more than all images


def test_the_best_number_of_chains_takes_least_time_for_a_noise():
    """Against a search over M, where 1 / N does not round the batch."""
    many = PRICES._replace(num_train=10**9)
    seconds = [many.seconds(setting(many.batch_size(1e-5, m), m)) for m in range(1, 20)]
    assert 1 + np.argmin(seconds) == 4


def test_the_cheapest_setting_for_a_noise_and_for_a_time():
    prices = [(setting(15, 2), PRICES)]
    chosen = price.cheapest(CONFIG, prices, noise=0.2, seconds=None)
    assert chosen.chains == 4
    assert PRICES.noise(chosen) <= 0.2
    others = [setting(PRICES.batch_size(0.2, m), m) for m in (1, 2, 3, 6, 8)]
    assert all(PRICES.seconds(chosen) <= PRICES.seconds(other) for other in others)
    quiet = price.cheapest(CONFIG, prices, noise=None, seconds=5.0)
    assert PRICES.seconds(quiet) <= 5.0
    assert quiet.chains in (3, 4, 6)
    assert price.cheapest(CONFIG, prices, noise=1e-9, seconds=None) is None


def test_settings_that_cannot_train_are_left_out():
    with_ratio = tiny.config(loss__correction="ratio")
    assert not price.is_valid(with_ratio, setting(15, 1))
    assert price.is_valid(with_ratio, setting(15, 2))
    chosen = price.cheapest(with_ratio, [(setting(15, 2), PRICES)], noise=0.2, seconds=None)
    assert chosen.chains >= 2


def test_the_program_prints_its_plan(monkeypatch, capsys):
    """With measurements of known prices: table, cheapest setting, and predictions beside them."""
    from launch import plan

    monkeypatch.setattr(price, "trained_params", lambda config, steps: None)
    monkeypatch.setattr(price, "measure_prices", lambda *arguments: PRICES)
    monkeypatch.setattr(price, "measure", lambda *arguments: price.NoiseAndTime(0.5, 0.25))
    monkeypatch.setattr(price.plan, "with_chunk", lambda config, size: config)
    monkeypatch.setattr(price.plan, "device_bytes", lambda config, size: 2**20)
    values = {"train_steps": 0, "workdir": None, "noise": 0.2, "budget": None, "bias": False}
    values |= {"image_size": None}
    monkeypatch.setattr(plan.flags, "FLAGS", SimpleNamespace(**values, check=True))
    monkeypatch.setattr(plan.config_file, "read", lambda: CONFIG)
    assert plan.main(["plan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("M* = 4")
    table = [line.split() for line in lines if line.split()[0] in ("15", "30")]
    setting_15_2 = next(row for row in table if row[:4] == ["15", "2", "3", "2"])
    assert float(setting_15_2[4]) == pytest.approx(PRICES.noise(setting(15, 2)), rel=1e-2)
    assert float(setting_15_2[5]) == pytest.approx(1.8)
    (best,) = (line for line in lines if line.startswith("cheapest:"))
    assert "--config.sampler.chains_per_image=4" in best
    assert sum(line.startswith("check: ") for line in lines) == 4


@pytest.mark.slow
def test_a_plan_is_measured():
    """Measured prices give the measured noise and time of their own setting."""
    laboratory = price.Laboratory(CONFIG, price.trained_params(CONFIG, 5), 1)
    present = price.setting_of(CONFIG)
    prices = price.measure_prices(laboratory, present, with_bias=True)
    assert prices.of_image > 0
    assert prices.of_chain > 0
    assert prices.bias.keys() == {"prior", "generator"}
    measured = price.measure(laboratory, present)
    assert prices.noise(present) == pytest.approx(measured.noise, rel=0.01)
    rows = list(price.rows(CONFIG, [(present, prices)], 1))
    assert {row.setting.chains for row in rows} == {1, 2, 4}
    assert all(row.bytes > 0 for row in rows)
