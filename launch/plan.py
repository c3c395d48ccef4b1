r"""The price of noise: which batch size, chains and temperatures are cheapest on this machine?

python -m launch.plan --config=configs/digits_small.py --noise=0.01
python -m launch.plan --config=configs/digits_small.py --workdir=runs/digits --budget=20m

The program measures, at the parameters of a trained run or after --train_steps steps, how much of
the gradient's noise comes from images and from chains, how long both take, and the bias. It prints
a table of settings with their predicted noise, seconds a step and memory, and the cheapest setting
for a noise or for a time of training. --check measures four settings that were only predicted.
Nothing is written. Exit codes: 0 done, 2 bad input.
"""

from __future__ import annotations

if not __package__:
    __import__("not_a_script")

from collections.abc import Sequence

from absl import flags

from thermo_ebm.errors import UserError, printable
from thermo_ebm.fields import ENCODER_LOSSES

from . import config_file, program
from .path_flags import DEFINE_path

if not program.HELP_ONLY:
    from ml_collections import ConfigDict

    from thermo_ebm.config import checks
    from thermo_ebm.evaluation.run import load_run
    from thermo_ebm.train import price, report, sizes, start, timing
    from thermo_ebm.train.price import ChainPrices, Laboratory, Row, Setting
    from thermo_ebm.train.task import updates_per_epoch
    from thermo_ebm.types import Params


def define_flags() -> None:
    """Defines this program's flags; not at import, so that programs can be imported together."""
    config_file.define(
        None, "Name or file of the configuration; --config.any.field=value changes a field."
    )
    config_file.define_images()
    DEFINE_path("workdir", None, "A run whose newest parameters are used; by default none.")
    flags.DEFINE_integer(
        "train_steps", 100, "Without --workdir: steps of training before the noise is measured.", 0
    )
    flags.DEFINE_float("noise", None, "Noise per parameter whose cheapest setting is asked for.")
    flags.DEFINE_string(
        "budget",
        None,
        "Time of as many updates, such as 2h, whose setting with least noise is asked for.",
    )
    flags.DEFINE_bool("bias", True, "Measure the bias of the gradient, which takes longest.")
    flags.DEFINE_bool("check", False, "Measure four settings that were predicted.")
    flags.register_validator(
        "noise", lambda value: value is None or 0 < value < float("inf"), message="must be positive"
    )


def main(argv: Sequence[str]) -> int:
    """Measures, and prints the plan; returns the exit code."""
    del argv
    values = flags.FLAGS
    config, notes = sizes.complete(config_file.read(), values.image_size)
    checks.check(config)
    if config.loss.name in ENCODER_LOSSES:
        raise UserError(
            f"loss.name={config.loss.name}: has no chains of the posterior, whose prices a plan "
            "compares"
        )
    budget = values.budget and timing.parse_duration(values.budget)
    if values.noise and budget:
        raise UserError("--noise, --budget: give one of them")
    if price.setting_of(config).batch_size < 2:
        raise UserError("batch_size=1: the time of an image needs two batch sizes")
    program.check_devices()
    for note in notes:
        report.say(printable(note))
    if config.sampler.prior.persistent:
        report.say(
            "warning     sampler.prior.persistent: all draws begin at the stored states of the "
            "prior's chains, so that the noise per chain comes out too small"
        )
    size = len(start.groups(config)[0])
    laboratory = Laboratory(config, _params(config), size)
    prices = []
    for setting in price.variants(config):
        report.say(f"measuring   N_t={setting.num_temperatures} K={setting.num_steps}")
        of_chains = price.measure_prices(laboratory, setting, values.bias)
        prices.append((setting, of_chains))
        print(_prices_line(setting, of_chains), flush=True)
    print("\n".join(_table(list(price.rows(config, prices, size)))), flush=True)
    if values.noise or budget:
        updates = config.num_repetitions * config.num_epochs * updates_per_epoch(config)
        seconds = budget / updates if budget else None
        print(_cheapest_line(config, price.cheapest(config, prices, values.noise, seconds), prices))
    if values.check:
        for line in _checked(laboratory, *prices[0]):
            print(line, flush=True)
    return 0


def _params(config: ConfigDict) -> Params:
    values = flags.FLAGS
    if values.workdir is None:
        return price.trained_params(config, values.train_steps)
    return load_run(values.workdir).params()


def _prices_line(setting: Setting, prices: ChainPrices) -> str:
    """The measured prices of one N_t and K."""
    return (
        f"N_t={setting.num_temperatures} K={setting.num_steps}: noise per image "
        f"{prices.of_image:.3g}, per chain {prices.of_chain:.3g}; seconds per image "
        f"{prices.image_seconds:.3g}, per chain {prices.chain_seconds:.3g}, per step "
        f"{prices.fixed_seconds:.3g}; M* = {prices.best_chains():.2g}"
    )


def _table(rows: Sequence[Row]) -> list[str]:
    titles = ("B", "M", "N_t", "K", "noise", "s/step", "s to halve noise", "memory", "bias")
    cells = [titles] + [
        (
            *map(str, row.setting),
            f"{row.noise:.3g}",
            f"{row.seconds:.3g}",
            f"{row.seconds_to_halve:.3g}",
            report.binary(row.bytes),
            " ".join(f"{name} {value:.2f}" for name, value in row.bias.items()) or "-",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(titles))]
    return ["  ".join(map(str.rjust, line, widths)) for line in cells]


def _cheapest_line(
    config: ConfigDict, setting: Setting | None, prices: Sequence[tuple[Setting, ChainPrices]]
) -> str:
    if setting is None:
        return "cheapest: no setting of this configuration reaches it"
    of_chains = next(
        of_setting
        for measured, of_setting in prices
        if (measured.num_temperatures, measured.num_steps)
        == (setting.num_temperatures, setting.num_steps)
    )
    present = price.setting_of(config).fields()
    changes = [f"--config.{k}={v}" for k, v in setting.fields().items() if v != present[k]]
    return (
        f"cheapest: noise {of_chains.noise(setting):.3g}, {of_chains.seconds(setting):.3g} s per "
        f"step: {' '.join(changes) or 'the present setting'}"
    )


def _checked(laboratory: Laboratory, setting: Setting, prices: ChainPrices) -> list[str]:
    """Predicted and measured noise and seconds of settings that were not measured."""
    batch, chains = setting.batch_size, setting.chains
    unmeasured = [
        setting._replace(batch_size=b, chains=m)
        for b, m in ((2 * batch, chains), (batch // 2, 2 * chains), (batch, 4 * chains))
    ]
    unmeasured.append(setting._replace(batch_size=3 * batch // 2, chains=2 * chains))
    lines = []
    for other in unmeasured:
        if price.is_valid(laboratory.config, other):
            measured = price.measure(laboratory, other)
            lines.append(
                f"check: B={other.batch_size} M={other.chains}: noise {prices.noise(other):.3g} "
                f"predicted, {measured.noise:.3g} measured; seconds {prices.seconds(other):.3g} "
                f"predicted, {measured.seconds:.3g} measured"
            )
    return lines


if __name__ == "__main__":
    program.run(main, define_flags)
