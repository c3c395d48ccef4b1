"""The importer of the study's published readings, on hand-written files in both layouts."""

import math
from pathlib import Path

import pytest
from study_builders import HEADER, write_published

from study.published import load_published, parse_path
from study.readings import load, networks, sections
from study.titles import PUBLISHED_NETWORK as NETWORK
from thermo_ebm.errors import UserError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "readings"
TAIL = "p=0.1/batch=75/experiment0.csv"


def test_both_layouts_become_one_table(tmp_path):
    write_published(tmp_path / "logs/CelebA/p=0/batch=25/experiment0.csv", kid=0.03)
    write_published(tmp_path / "logs/CelebA/p=6/batch=75/experiment1.csv", kid=0.05)
    write_published(tmp_path / f"extra_logs/CelebA/temps=30/{TAIL}", kid=0.07)
    readings = load(None, tmp_path)
    assert len(readings.frame) == 6
    assert sorted(readings.frame["epoch"].unique()) == [1.0, 2.0]
    (section,) = sections(readings)
    vanilla, changed, plain = section.cells.to_dict("records")
    assert (vanilla["loss.name"], vanilla["batch_size"]) == ("vanilla", 25.0)
    assert math.isnan(vanilla["loss.power"])
    assert (plain["loss.power"], plain["loss.num_temperatures"], plain["loss.prior_gradient"]) == (
        6.0,
        10.0,
        "none",
    )
    assert (
        changed["loss.power"],
        changed["loss.num_temperatures"],
        changed["sampler.posterior.num_steps"],
    ) == (0.1, 30, 20)
    last = section.last.set_index("loss.power")
    assert last.loc[6.0, f"{NETWORK}_kid_inf"] == 0.05
    assert last.loc[6.0, "repetition"] == 1
    assert networks(readings.frame) == [NETWORK]


def test_paths_become_configuration_fields():
    baseline, _ = parse_path(Path(f"/x/logs/CelebA/{TAIL}"))
    changes = {
        "temps=20": {"loss.num_temperatures": 20.0},
        "posterior_mcmc=40": {"sampler.posterior.num_steps": 40.0},
        "prior_mcmc=80": {"sampler.prior.num_steps": 80.0},
        "beta=4.0": {"loss.kl_weight": 4.0},
    }
    for change, fields in changes.items():
        changed, _ = parse_path(Path(f"/x/extra_logs/CelebA/{change}/{TAIL}"))
        assert changed == baseline | fields
    # Steps are those of the paper, or stay unknown.
    steps = [
        parse_path(Path(f"/x/{d}/{TAIL}"))[0].get("sampler.posterior.num_steps")
        for d in ("CIFAR10", "SVHN")
    ]
    assert steps == [40.0, None]


GOOD = "0,250.5,0.001,4.5,251.0,400.0,900.0,0.08,1e6"


def test_malformed_files_are_reported_with_file_and_line(tmp_path):
    for header, rows, line, words in [
        (HEADER, [GOOD, "1,120.5,0.001,oops,121.0,300.0,700.0,0.04,5e5"], 3, "Train Grad Var"),
        (HEADER, [GOOD, "1,120.5,0.001,0.5,121.0,300.0"], 3, "6 fields"),
        (HEADER, [GOOD, "1,120.5,,0.5,121.0,300.0,700.0,0.04,5e5"], 3, "Train Grad"),
        (HEADER, [GOOD, GOOD], 3, "must rise"),
        (HEADER, [GOOD.replace("0,", "1,", 1)], 2, "first Epoch"),
        (HEADER, [GOOD.replace("0,", "0.5,", 1)], 2, "whole number"),
        (HEADER.replace("KID_inf", "KID"), [GOOD], 1, "KID_inf"),
        (HEADER.replace("KID_inf", "FID_inf,KID_inf"), [GOOD], 1, "twice"),
        (HEADER, ["", ""], 2, "no readings"),
    ]:
        path = write_published(tmp_path / "logs/CelebA" / TAIL, header=header, rows=rows)
        with pytest.raises(UserError) as caught:
            load_published(tmp_path)
        assert f"{path.resolve()}:{line}:" in str(caught.value)
        assert words in str(caught.value)


def test_an_empty_and_a_binary_file(tmp_path):
    path = write_published(tmp_path / "logs/CelebA" / TAIL)
    path.write_text("")
    with pytest.raises(UserError, match=r"experiment0\.csv:1: the file is empty"):
        load_published(tmp_path)
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match=r"experiment0\.csv: cannot be read"):
        load_published(tmp_path)


def test_other_layouts_are_reported_with_the_file(tmp_path):
    places = [
        "logs/CelebA/p=six/batch=75/experiment0.csv",
        "logs/CelebA/p=6/75/experiment0.csv",
        "logs/CelebA/p=6/batch=75/run0.csv",
        "extra_logs/CelebA/width=3/p=0.1/batch=75/experiment0.csv",
        "extra_logs/CelebA/temps=many/p=0.1/batch=75/experiment0.csv",
    ]
    for number, place in enumerate(places):
        folder = tmp_path / str(number)
        path = write_published(folder / place)
        with pytest.raises(UserError, match=path.name):
            load_published(folder)


def test_values_that_no_study_has_are_reported_with_file_and_field(tmp_path):
    for place, words in [
        ("logs/CelebA/p=nan/batch=75/experiment0.csv", "p is nan"),
        ("logs/CelebA/p=-1/batch=75/experiment0.csv", "p is -1"),
        ("logs/CelebA/p=6/batch=0/experiment0.csv", "batch is 0"),
        (f"extra_logs/CelebA/temps=inf/{TAIL}", "temps is inf"),
    ]:
        path = write_published(tmp_path / words / place)
        with pytest.raises(UserError, match=rf"{path.name}: {words}"):
            load_published(tmp_path / words)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_published(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no CSV file"):
        load_published(tmp_path)
    with pytest.raises(UserError, match="nothing to report on"):
        load(None, None)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published readings are not here")
def test_the_published_figures_of_p_6_on_celeba():
    by_dataset = {section.dataset: section.last for section in sections(load(None, SHARED))}
    assert sum(map(len, by_dataset.values())) == 168
    last = by_dataset["celeb_a"]
    last = last[last["loss.power"] == 6.0]
    variance, kid = last["train_grad_var"], last[f"{NETWORK}_kid_inf"]
    assert (round(variance.mean(), 4), round(variance.std(), 4)) == (0.3437, 0.0116)
    assert (round(kid.mean(), 4), round(kid.std(), 4)) == (0.0427, 0.0023)
