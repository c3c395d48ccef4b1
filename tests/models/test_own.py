"""Networks of a user in the trainer: their kinds, what is refused, records, resumes."""

import importlib
import json
import sys

import jax
import numpy as np
import pytest
import tiny_training as tiny

import thermo_ebm as te
from thermo_ebm.config import checks
from thermo_ebm.errors import UserError
from thermo_ebm.models import own
from thermo_ebm.models.latent_ebm import make_model
from thermo_ebm.run import layout, provenance
from thermo_ebm.train.loop import Outcome

KINDS = ("plain", "of_haiku", "of_flax")


def config(name, **changes):
    return tiny.config(model__factory=f"own_networks:{name}", **changes)


@pytest.mark.parametrize("name", KINDS)
def test_networks_of_every_kind_make_a_model(name):
    made = config(name)
    checks.check(made)
    model = make_model(made)
    params = model.init(jax.random.key(0))
    z = jax.random.normal(jax.random.key(1), (3, 4))
    outputs = model.generator(params["generator"], z)
    weights = jax.tree.leaves(params["generator"]["network"])[-1]  # the bias of Haiku's is 0
    np.testing.assert_allclose(
        outputs, np.tanh(np.asarray(z) @ weights).reshape(3, 8, 8, 1), rtol=1e-4, atol=1e-6
    )
    assert model.tilt(params["prior"], z).shape == (3,)
    assert make_model(made) == model  # one value, whose functions are compiled once


def test_learned_sigma_and_logits_follow_the_own_network():
    """The likelihood's output, with its parameters, comes after the network."""
    learned = make_model(config("plain", model__likelihood__name="learned_gaussian"))
    params = learned.init(jax.random.key(0))["generator"]
    assert [leaf.shape for leaf in jax.tree.leaves(params["output"])] == [()]
    assert learned.generator(params, np.ones((2, 4), np.float32)).shape == (2, 8, 8, 2)
    logits = make_model(config("plain", model__likelihood__name="bernoulli"))
    assert np.abs(logits.generator(params, np.full((2, 4), 9.0, np.float32))).max() > 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "own_networks has no function absent"),
        ("fails", "the factory failed (ZeroDivisionError: no networks)"),
        ("of_another_size", "the generator returns [2, 9] for z [2, 4], must return [2, 8, 8, 1]"),
        ("of_integers", "the prior has parameters that are not floating-point numbers"),
        ("cannot_be_applied", "the prior cannot be applied to z [2, 4] (TypeError: dot_general"),
        ("with_an_encoder", "has an encoder, which loss.name=thermodynamic does not take"),
        ("of_nothing", "a network is a pair of functions, init(key, z) and apply(parameters, z)"),
        ("a_pair", "that returns te.Networks, not tuple"),
    ],
)
def test_wrong_networks_are_one_line(name, message):
    with pytest.raises(UserError) as error:
        checks.check(config(name))
    assert str(error.value).startswith(f"model.factory=own_networks:{name}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_that_is_no_factory_is_refused():
    with pytest.raises(UserError, match=r"^model.factory='networks': must be"):
        checks.check(tiny.config(model__factory="networks"))


@pytest.fixture
def changing(tmp_path, monkeypatch):
    """A module of networks and a function that changes its source."""
    path = tmp_path / "changing_networks.py"
    path.write_text("from own_networks import plain\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield lambda: path.write_text("from own_networks import plain\n# changed\n")
    sys.modules.pop("changing_networks", None)


def test_a_changed_source_is_named(changing, tmp_path):
    made = tiny.config(model__factory="changing_networks:plain")
    workdir = tmp_path / "run"
    workdir.mkdir()
    before = own.source(made)
    device, levels = provenance.Device("cpu", "cpu"), provenance.ImageLevels()
    provenance.record_start(workdir, made, levels, device, source=before._asdict())
    recorded = json.loads((workdir / layout.MODEL).read_text())
    assert recorded == {"factory": "changing_networks:plain", "sha256": before.sha256}
    layout.repetition_dir(workdir, 0).mkdir()
    provenance.check_source(workdir, before.sha256)
    changing()
    after = own.source(made)
    message = (
        r"model.factory=changing_networks:plain: the source of changing_networks is not the one "
        rf".*{before.sha256[:12]} then, {after.sha256[:12]} now\); .* remove .*model.json"
    )
    with pytest.raises(UserError, match=message):
        provenance.check_source(workdir, after.sha256)
    (workdir / layout.MODEL).unlink()  # as the message says
    provenance.check_source(workdir, after.sha256)
    provenance.record_start(workdir, made, levels, device, source=after._asdict())
    assert after.sha256 in (workdir / layout.MODEL).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_run_trains_resumes_and_is_used(name, tmp_path):
    changes = {"num_epochs": 2, "data__num_train": 60, "steps_per_dispatch": 3}
    changes |= {"model__factory": f"own_networks:{name}", "optimizer__ema_decay": 0.9}
    made = tiny.config(**changes)
    assert tiny.train(made, tmp_path / "straight") is Outcome.DONE
    assert tiny.train(made, tmp_path / "stopped", dispatches=1) is Outcome.INTERRUPTED
    assert tiny.train(made, tmp_path / "stopped") is Outcome.DONE
    tiny.assert_equal_runs(tmp_path / "straight", tmp_path / "stopped", **changes)
    run = te.load_run(tmp_path / "straight")
    samples = run.sample(3, jax.random.key(0))
    assert samples.shape == (3, 8, 8, 1)
    assert np.isfinite(samples).all()
    run.export(tmp_path / "model.safetensors")
    again = te.load_run(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.sample(3, jax.random.key(0)), samples)


@pytest.mark.slow
def test_a_run_does_not_continue_with_another_source(changing, tmp_path, caplog):
    changes = {"num_epochs": 1, "data__num_train": 60}
    made = tiny.config(model__factory="changing_networks:plain", **changes)
    assert tiny.train(made, tmp_path / "run") is Outcome.DONE
    te.load_run(tmp_path / "run")
    assert "the source of" not in caplog.text
    changing()
    with pytest.raises(UserError, match="the source of changing_networks is not the one that"):
        tiny.train(made, tmp_path / "run")
    te.load_run(tmp_path / "run").params()
    assert "the source of changing_networks is not the one that" in caplog.text


@pytest.mark.slow
def test_programs_take_a_factory(programs, tmp_path):
    workdir, arguments = f"--workdir={tmp_path}", tiny.flags(num_epochs=1, data__num_train=60)
    code, _, err = programs.run("train", *arguments, workdir, "--model=own_networks:plain")
    assert code == 0, err
    assert json.loads((tmp_path / layout.MODEL).read_text())["factory"] == "own_networks:plain"
    for name, small in {
        "sample": ("--num=2",),
        "likelihood": ("--num_images=2", "--num_simulated=0", "--error=2", "--chains=8"),
    }.items():
        code, _, err = programs.run(name, workdir, *small)
        assert code == 0, err
    code, _, err = programs.run("train", *arguments, workdir, "--model=own_networks:absent")
    message = "error: model.factory=own_networks:absent: own_networks has no function absent\n"
    assert (code, err) == (2, message)
