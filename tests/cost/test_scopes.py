"""The named parts of a step: they label all of it, and change none of it."""

import contextlib
import re

import jax
import pytest
import tiny_training as tiny

from benchmarks import aot
from thermo_ebm import scopes
from thermo_ebm.config.build import image_shape, make_loss
from thermo_ebm.cost.flops import gradient_flops, gradient_flops_by_part
from thermo_ebm.models.latent_ebm import make_model
from thermo_ebm.train.task import make_task


def lowered(**changes):
    config = tiny.config(**changes)
    return aot.lower_step(make_task(config), jax.devices())


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["reweighted", "langevin"])
def test_scopes_change_nothing_of_a_step(monkeypatch, generator):
    changes = {"loss__generator_gradient": generator, "sampler__image_chunk": 2}
    text = lowered(**changes).as_text()
    monkeypatch.setattr(jax, "named_scope", lambda name: contextlib.nullcontext())
    assert lowered(**changes).as_text() == text


def test_every_part_of_a_step_has_its_scope():
    text = lowered(loss__generator_gradient="reweighted").as_text(debug_info=True)
    for part in scopes.PARTS:
        assert re.search(rf"[/(]{part}[/)]", text), part


@pytest.mark.parametrize("generator", ["reweighted", "langevin"])
def test_flops_by_part_add_up(generator):
    config = tiny.config(loss__generator_gradient=generator)
    model = make_model(config.model, config.data.channels)
    arguments = make_loss(config, model, None), model, 5, image_shape(config)
    parts = gradient_flops_by_part(*arguments)
    assert sum(count.matmul for count in parts.values()) == gradient_flops(*arguments).matmul
    chains = parts[scopes.POSTERIOR_CHAINS].useful
    # Each step of a chain is a generator's value and its derivative by the latents.
    assert 0.5 < chains / gradient_flops(*arguments).useful < 1
    assert 0 < parts[scopes.PRIOR_CHAINS].useful < chains
