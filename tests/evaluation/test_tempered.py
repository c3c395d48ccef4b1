"""Tempered posteriors in two dimensions: against a closed form, drawn, and as a program."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from study.report import diagnostics_parts
from thermo_ebm.evaluation import tempered
from thermo_ebm.models.latent_ebm import LatentEBM
from thermo_ebm.run import layout, lock, record
from thermo_ebm.sampling.chains import ChainSettings, SamplerSettings
from thermo_ebm.train import checkpoints, spmd, tasks

PRIOR_SIGMA, LIKELIHOOD_SIGMA = 1.2, 0.9
TEMPERATURES = np.array([0.0, 0.2, 1.0])
SHAPE = (2, 3, 1)
WEIGHTS = np.random.default_rng(0).normal(size=(2, 6)) / 2  # [latent_dim, pixels]
SHIFT = np.array([0.4, -0.9])  # of the prior, by a tilt that is linear
IMAGE = np.random.default_rng(1).normal(size=SHAPE)
SETTINGS = SamplerSettings(ChainSettings(0.05, 60), ChainSettings(0.05, 60))
TINY = {
    "batch_size": 15,
    "data.num_train": 150,
    "data.num_val": 20,
    "model.generator.features": 4,
    "model.prior.features": 8,
    "sampler.prior.num_steps": 3,
    "sampler.posterior.num_steps": 2,
}


def gaussian_model(latent_dim=2):
    return LatentEBM(
        tilt=lambda alpha, z: z @ alpha,
        generator=lambda beta, z: (z @ beta).reshape(-1, *SHAPE),
        init=lambda key: None,
        latent_dim=latent_dim,
        prior_sigma=PRIOR_SIGMA,
        likelihood_sigma=LIKELIHOOD_SIGMA,
    )


def power_posterior(temperature):
    """Mean and covariance in closed form."""
    precision = np.eye(2) / PRIOR_SIGMA**2 + temperature * WEIGHTS @ WEIGHTS.T / LIKELIHOOD_SIGMA**2
    cov = np.linalg.inv(precision)
    return cov @ (SHIFT + temperature * WEIGHTS @ IMAGE.ravel() / LIKELIHOOD_SIGMA**2), cov


@functools.cache
def posteriors(num_chains=2000, exchange_every=0):
    settings = SETTINGS._replace(exchange_every=exchange_every)
    params = {"prior": jnp.float32(SHIFT), "generator": jnp.float32(WEIGHTS)}
    image, key = jnp.float32(IMAGE), jax.random.key(0)
    return tempered.tempered_posteriors(
        gaussian_model(), params, image, TEMPERATURES, key, settings, num_chains
    )


@pytest.mark.parametrize("index", range(3))
def test_densities_have_the_closed_forms_moments(index):
    made = posteriors()
    weights = made.density[index] * (made.axis[1] - made.axis[0]) ** 2
    z = np.stack(np.meshgrid(made.axis, made.axis), axis=-1)
    mean = np.einsum("ij,ijk->k", weights, z)
    cov = np.einsum("ij,ijk,ijl->kl", weights, z - mean, z - mean)
    exact_mean, exact_cov = power_posterior(TEMPERATURES[index])
    assert weights.sum() == pytest.approx(1, abs=1e-9)
    # The square ends four sigma_0 from the origin, the shifted prior's tail a little outside.
    np.testing.assert_allclose(mean, exact_mean, atol=0.02)
    np.testing.assert_allclose(cov, exact_cov, atol=0.04)


@pytest.mark.parametrize("index", range(3))
def test_chains_end_where_their_density_is(index):
    z = posteriors().latents[index]
    mean, cov = power_posterior(TEMPERATURES[index])
    # Four standard errors; 60 steps of 0.05 leave e^-2 of the starting mean's distance at most,
    # and a variance too large by a step's share.
    error = np.sqrt(np.diag(cov) / len(z))
    left = (1 - 0.05 / PRIOR_SIGMA**2) ** 60 * np.abs(mean)
    assert (np.abs(z.mean(axis=0) - mean) < 4 * error + left).all()
    assert np.linalg.det(np.cov(z.T)) == pytest.approx(np.linalg.det(cov), rel=0.3)


def test_images_are_the_latents_own():
    made = posteriors()
    np.testing.assert_allclose(
        made.decoded, (made.latents @ WEIGHTS).reshape(3, -1, *SHAPE), rtol=1e-4, atol=1e-4
    )


def test_levels_of_a_standard_normal():
    """The region that holds the mass m is a disc, at whose edge the density is (1 - m) / 2 pi."""
    axis = np.linspace(-5, 5, 401)
    square = axis**2 + axis[:, None] ** 2
    density = tempered.normalised(-square / 2, axis)
    levels = tempered.highest_density_levels(density, (0.9, 0.5, 0.1))
    np.testing.assert_allclose(levels, np.array([0.1, 0.5, 0.9]) / (2 * np.pi), rtol=0.01)


def test_only_planes():
    arguments = (
        {"prior": None, "generator": None},
        IMAGE,
        TEMPERATURES,
        jax.random.key(0),
        SETTINGS,
    )
    with pytest.raises(ValueError, match="3 dimensions"):
        tempered.tempered_posteriors(gaussian_model(latent_dim=3), *arguments)


def test_the_picture_has_a_panel_per_temperature():
    figure = tempered.draw(posteriors())
    figure.canvas.draw()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:4] == ["image x", "t = 0: prior", "t = 0.2", "t = 1: posterior"]
    ends = figure.axes[2].lines[0].get_xydata()
    np.testing.assert_array_equal(ends, posteriors().latents[1])
    assert all(axis.images for axis in figure.axes[5:])


def test_chains_with_exchange_have_their_own_row():
    made, exchanged = posteriors(), posteriors(exchange_every=2)
    assert made.exchanged is None
    np.testing.assert_allclose(exchanged.latents, made.latents, atol=1e-5)
    # The prior's chains have no part in it.
    np.testing.assert_allclose(exchanged.exchanged[0], made.latents[0], atol=1e-5)
    moved = np.abs(exchanged.exchanged[1:] - made.latents[1:]).max(axis=-1) > 1e-3
    assert moved.mean() > 0.2
    figure = tempered.draw(exchanged)
    figure.canvas.draw()
    without, with_exchange = figure.axes[2], figure.axes[6]
    np.testing.assert_array_equal(without.lines[0].get_xydata(), exchanged.latents[1])
    np.testing.assert_array_equal(with_exchange.lines[0].get_xydata(), exchanged.exchanged[1])
    assert "every 2 steps" in figure.axes[4].texts[0].get_text()
    decoded = (exchanged.exchanged @ WEIGHTS).reshape(3, -1, *SHAPE)
    np.testing.assert_allclose(exchanged.decoded, decoded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("index", [1, 2])
def test_exchanged_chains_end_where_their_density_is(index):
    z = posteriors(exchange_every=2).exchanged[index]
    mean, cov = power_posterior(TEMPERATURES[index])
    error = np.sqrt(np.diag(cov) / len(z))
    left = (1 - 0.05 / PRIOR_SIGMA**2) ** 60 * np.abs(mean)
    assert (np.abs(z.mean(axis=0) - mean) < 4 * error + left).all()
    assert np.linalg.det(np.cov(z.T)) == pytest.approx(np.linalg.det(cov), rel=0.3)


def test_a_density_narrower_than_the_grid_is_drawn():
    made = posteriors()
    spike = np.zeros_like(made.density)
    spike[:, 90, 90] = 1.0
    tempered.draw(made._replace(density=spike)).canvas.draw()


def make_run(workdir, **changes):
    """A run with a checkpoint of its first step, as written by training."""
    config = importlib.import_module("configs.digits_plane").get_config()
    named = {name.replace("__", "."): value for name, value in changes.items()}
    config.update_from_flattened_dict(TINY | named)
    with lock.hold(workdir):
        record.record(workdir, config, record.Means(), "cpu", "cpu")
    task = tasks.make_task(config, axis_name=None)
    state = quick_state(task)
    folder = layout.repetition_dir(workdir, 0) / "checkpoints"
    folder.parent.mkdir()
    opened = checkpoints.open_checkpoints(folder)
    checkpoints.save(opened, jax.device_put(state, spmd.replicated()), 0.0)
    checkpoints.close(opened)
    return workdir


def quick_state(task):
    return jax.jit(functools.partial(tasks.init_state, task))(0)


def test_the_program_draws_or_says_what_is_wrong(tmp_path, programs):
    plane, space = make_run(tmp_path / "plane"), make_run(tmp_path / "space", model__latent_dim=3)
    wrong = {
        "--image=20": "image=20: must be from 0 to 19 (validation images)",
        "--power=0": "power=0.0: must be positive",
        f"--output={tmp_path}/p.bad": f"output={tmp_path}/p.bad: Format 'bad' is not supported",
        f"--workdir={space}": f"{space}: model.latent_dim is 3, a picture needs 2",
        "--prior_step_size=-1": "prior_step_size=-1.0: must be positive",
    }
    plain = ["tempered", f"--workdir={plane}", "--num_temperatures=2"]
    good = programs.start(*plain, "--exchange_every=1")
    bad = [programs.start(*plain, flag) for flag in wrong]
    picture = plane / "rep_00/drawn/tempered.png"
    assert good.wait()[:2] == (0, f"drawn: {picture}\n")
    assert picture.read_bytes().startswith(b"\x89PNG")
    for process, message in zip(bad, wrong.values(), strict=True):
        code, _, printed = process.wait()
        assert code == 2
        assert printed.startswith(f"error: {message}"), printed
        assert printed.count("\n") == 1


def test_the_program_diagnoses_any_latent(tmp_path, programs):
    space = make_run(tmp_path / "space", model__latent_dim=3)
    command = ["tempered", f"--workdir={space}", "--diagnostics", "--exchange_every=1"]
    small = ["--kernel=mala", "--num_steps=20", "--num_images=2", "--chains_per_image=3"]
    measured = programs.start(*command, *small, "--num_temperatures=2")
    refused = programs.start(*command, "--num_temperatures=1")
    code, printed, _ = measured.wait()
    table = space / "rep_00/diagnostics.csv"
    assert code == 0
    assert "posterior, t = 1 (* this run's K, mala)" in printed
    assert printed.endswith(f"written: {table}\n")
    assert len(table.read_text().splitlines()) == 1 + 2 * 3  # 8 and 20 steps, three temperatures
    heading, note, details = diagnostics_parts([space, tmp_path])
    assert heading.startswith('<h2 id="chains">')
    assert note.startswith('<p class="note">')
    assert details.count("<tr>") == 1 + 6
    code, _, printed = refused.wait()
    assert code == 2
    assert "exchange_every=1: needs num_temperatures of at least 2" in printed
