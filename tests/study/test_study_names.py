"""What columns are called: the metric decides where a network's name ends."""

import pytest

from study.names import reading_title, split_metric


@pytest.mark.parametrize(
    ("column", "network", "metric", "title"),
    [
        ("inception_v3_kid_inf", "inception_v3", "kid_inf", "KID∞, InceptionV3"),
        (
            *("inception_v3_antialias_kid_inf", "inception_v3_antialias", "kid_inf"),
            "KID∞, InceptionV3 (antialiased)",
        ),
        ("my_net_kid_rbf_inf", "my_net", "kid_rbf_inf", "KID∞ (RBF), my_net"),
        ("my_net_mifid_inf", "my_net", "mifid_inf", "MIFID∞, my_net"),
        ("my_net_coverage", "my_net", "coverage", "coverage, my_net"),
    ],
)
def test_a_network_ends_where_its_metric_begins(column, network, metric, title):
    assert split_metric(column) == (network, metric)
    assert reading_title(column) == title


def test_readings_are_named_by_what_they_are():
    assert split_metric("train_grad_var") is None
    assert reading_title("train_grad_var") == "variance over entries"
    assert reading_title("val_log_likelihood") == "held-out log-likelihood, nats"
    assert "objective" in reading_title("val_loss")
    assert reading_title("of_a_later_version") == "of a later version"
    assert split_metric("n_kid_inf_stderr") is None
