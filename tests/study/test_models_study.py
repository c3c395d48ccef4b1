"""The page of the kinds of models, from folders made by hand; the commands that fill them."""

import json

import pytest

from study.measurements import models
from study.pages import models_page
from thermo_ebm.errors import UserError

SEEDS = 3


def write(folder, log_p, kid):
    folder.mkdir(parents=True, exist_ok=True)
    readings = "epoch,step,train_update_noise,seconds\n1,20,0.5,1.5\n2,40,0.25,2.5\n"
    (folder / "readings.csv").write_text(readings)
    header = "epoch,step,efficientnet_lite0_kid,efficientnet_lite0_fid\n"
    (folder / "eval.csv").write_text(f"{header}2,40,{kid},{100 * kid}\n")
    (folder / "likelihood").mkdir()
    mean = {"log_marginal_likelihood": log_p, "stderr": 0.1, "num_images": 20, "num_reliable": 19}
    summary = {"validation": mean, "simulated": {"gap": 0.2}}
    (folder / "likelihood" / "summary.json").write_text(json.dumps(summary))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for place, name in enumerate(models.ARMS):
        for seed in range(SEEDS):
            log_p = -10.0 - place - 0.01 * seed
            write(folder / name / f"rep_{seed:02d}", log_p, 0.01 * (place + 1) + 0.001 * seed)
    for seed in range(SEEDS):
        write(folder / f"{models.TWO_STAGE}_{seed}" / f"rep_{seed:02d}", -9.0, 0.5)
    return folder


def test_the_page_has_the_numbers_of_the_runs(folder, tmp_path):
    paths = models_page.write(folder, tmp_path, "3m")
    assert all(path.stat().st_size > 0 for path in paths)
    text = paths[-1].read_text(encoding="utf-8")
    titles = [arm.title for arm in models.ARMS.values()]
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "|" in line}
    # Means over seeds of -10, -10.01, -10.02; seconds summed over epochs; the last epoch's noise.
    assert "| -10.01 ± 0.01 | 0.2 | 0.011 ± 0.001 | 1.1 ± 0.1 | 0.25 | 4 | 40 |" in text
    assert f"| {titles[0]} |" in text
    assert "57 of 60" in text
    assert models.TWO_STAGE_TITLE in lines
    assert f"The highest mean log p(x) is that of: {models.TWO_STAGE_TITLE} (-9 nats)" in text
    assert f"the lowest mean KID that of: {titles[0]} (0.011)" in text
    # The reference is five places after the first: 5 nats and 0.05 at every seed.
    assert "**+5 [5, 5]**" in text
    assert "**-0.05 [-0.05, -0.05]**" in text
    assert "--budget=3m" in text


def test_a_run_that_was_not_evaluated_is_named(folder, tmp_path):
    (tmp_path / "vae" / "rep_00").mkdir(parents=True)
    with pytest.raises(UserError, match=r"vae.rep_00: not evaluated yet"):
        models_page.load(tmp_path)
    with pytest.raises(UserError, match="no runs"):
        models_page.load(tmp_path / "nothing")


def test_every_model_is_trained_evaluated_and_its_log_p_estimated(tmp_path):
    listed = list(models.commands(tmp_path, "9m", SEEDS))
    names = [command[0] for _, command in listed]
    assert names.count("train") == len(models.ARMS)
    assert names.count("fit_prior") == SEEDS
    assert names.count("likelihood") == SEEDS * (len(models.ARMS) + 1)
    assert len({done for done, _ in listed}) == len(listed)
    trained = {done.parent.name for done, command in listed if command[0] == "train"}
    assert trained == set(models.ARMS)
