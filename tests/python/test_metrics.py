"""Metrics: reference values, degenerate labels, intervals."""

from __future__ import annotations

import numpy as np
import pytest

from tributary import metrics


def test_boolean_metrics_equal_hand_counts():
    label = [True, False, True, False]
    probability = [0.9, 0.8, 0.7, 0.1]
    found = metrics.compute("boolean", label, None, probability)
    assert found["auroc"] == pytest.approx(3 / 4)  # of 4 (true, false) pairs one is in the wrong order
    assert found["average_precision"] == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert found["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert found["accuracy"] == pytest.approx(3 / 4)


def test_numerical_metrics_equal_hand_counts():
    found = metrics.compute("numerical", [0.0, 2.0, 4.0], [1.0, 2.0, 2.0], train_label_std=2.0)
    assert found["mae"] == pytest.approx(1.0)
    assert found["rmse"] == pytest.approx(np.sqrt(5 / 3))
    assert found["r2"] == pytest.approx(1 - 5 / 8)
    assert found["nmae"] == pytest.approx(0.5)


def test_categorical_metrics_take_class_names():
    found = metrics.compute("categorical", ["a", "a", "b", "c"], ["a", "b", "b", "b"])
    assert found["accuracy"] == pytest.approx(0.5)
    assert found["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


@pytest.mark.parametrize("value", [True, False])
def test_one_class_has_no_auroc_and_says_why(value):
    label = [value] * 5
    found = metrics.compute("boolean", label, None, [0.1, 0.2, 0.3, 0.4, 0.9])
    assert found["auroc"] is None
    assert found["accuracy"] is not None
    assert (found["average_precision"] is None) == (not value)
    assert str(value).lower() in metrics.undefined("boolean", label)["auroc"]
    assert metrics.score("boolean", label, None, [0.1, 0.2, 0.3, 0.4, 0.9], num_resamples=20).intervals["auroc"] is None


def test_constant_labels_have_no_r2_and_no_nmae_without_training_spread():
    found = metrics.compute("numerical", [3.0, 3.0], [3.0, 4.0], train_label_std=0.0)
    assert found["r2"] is None
    assert found["nmae"] is None
    assert found["mae"] == pytest.approx(0.5)
    assert set(metrics.undefined("numerical", [3.0, 3.0], 0.0)) == {"r2", "nmae"}


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="1 of 2 values of `prediction` are not finite"):
        metrics.compute("numerical", [1.0, 2.0], [1.0, np.nan])
    with pytest.raises(ValueError, match="2 labels and 1 values of `probability`"):
        metrics.compute("boolean", [True, False], None, [0.5])
    with pytest.raises(ValueError, match="need `probability`"):
        metrics.compute("boolean", [True, False], [True, False])
    with pytest.raises(ValueError, match="stype `text`"):
        metrics.compute("text", ["a"], ["a"])
    with pytest.raises(ValueError, match="0 labels"):
        metrics.compute("numerical", [], [])


def test_intervals_hold_the_value_and_shrink_with_rows():
    rng = np.random.default_rng(0)
    widths = []
    for num_rows in (100, 2000):
        label = rng.normal(size=num_rows)
        prediction = label + rng.normal(size=num_rows)
        scored = metrics.score("numerical", label, prediction, train_label_std=1.0, num_resamples=200)
        (low, high), value = scored.intervals["mae"], scored.values["mae"]
        assert low < value < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_intervals_are_the_same_for_the_same_rng_seed():
    label, probability = np.arange(50) % 3 == 0, np.linspace(0, 1, 50)
    first, again, other = (metrics.score("boolean", label, None, probability, rng_seed=seed) for seed in (3, 3, 4))
    assert first.intervals == again.intervals
    assert first.intervals != other.intervals


def test_resampled_metrics_equal_scikit_learn_on_the_resampled_rows():
    rng = np.random.default_rng(5)
    size = 60
    cases = {
        "boolean": (rng.random(size) < 0.4, rng.integers(0, 8, size) / 8),
        "numerical": (rng.normal(size=size), rng.normal(size=size)),
        "categorical": (rng.integers(0, 5, size), rng.integers(0, 6, size)),
    }
    for stype, (label, given) in cases.items():
        samples = metrics.score(stype, label, given, given, 2.0, num_resamples=30, rng_seed=9).samples
        draws = np.random.default_rng(9)
        for i in range(30):
            rows = draws.integers(0, size, size)
            expected = metrics.compute(stype, label[rows], given[rows], given[rows], 2.0)
            assert {name: values[i] for name, values in samples.items()} == pytest.approx(expected)


def test_difference_is_paired_and_positive_when_better():
    rng = np.random.default_rng(0)
    label = rng.normal(size=300)
    near, far = label + 0.5 * rng.normal(size=300), label + 2 * rng.normal(size=300)
    ours, theirs = (metrics.score("numerical", label, p, train_label_std=1.0) for p in (near, far))
    gain, low, high = metrics.difference("mae", ours, theirs)
    assert 0 < low < gain < high
    assert metrics.difference("mae", theirs, ours)[2] < 0
    assert metrics.difference("r2", ours, theirs)[0] > 0
    assert metrics.difference("mae", ours, ours) == (0, 0, 0)


def test_direction_of_each_metric():
    assert metrics.is_better("auroc", 0.8, 0.7)
    assert metrics.is_better("rmse", 0.7, 0.8)
    assert not metrics.is_better("mae", 1.0, 1.0)
    assert metrics.default_metric("boolean") == "auroc"
    assert metrics.default_metric("numerical") == "mae"
    assert metrics.default_metric("categorical") == "accuracy"


def test_links_equal_hand_counts():
    truth = [[3], [5, 6, 9], [], [1, 2, 3, 4]]
    ranked = [[7, 3, 1], [5, 8, 9], [1, 2, 3], [8, 9, -1]]
    hits = metrics.is_hit(ranked, truth)
    assert hits.tolist() == [[False, True, False], [True, False, True], [False] * 3, [False] * 3]
    found = metrics.compute_links(hits, [len(true) for true in truth])
    # the third has no link and does not count
    assert found["map"] == pytest.approx((1 / 2 + (1 + 2 / 3) / 3 + 0) / 3)
    assert found["precision"] == pytest.approx((1 + 2 + 0) / 9)
    assert found["recall"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert found["mrr"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert metrics.map_at_k(hits, [1, 3, 0, 4]) == found["map"]
    assert metrics.map_at_k(hits[:, :1], [1, 3, 0, 4]) == pytest.approx(1 / 3), "more links than k: divided by k"


def test_links_have_intervals_that_are_paired():
    rng = np.random.default_rng(0)
    good, bad = rng.random((200, 5)) < 0.5, rng.random((200, 5)) < 0.1
    ours, theirs = (metrics.score_links(hits, np.full(200, 5)) for hits in (good, bad))
    low, high = ours.intervals["map"]
    assert low < ours.values["map"] < high
    gain, low, _ = metrics.difference("map", ours, theirs)
    assert gain == pytest.approx(ours.values["map"] - theirs.values["map"])
    assert low > 0
    nothing = metrics.score_links(np.zeros((3, 2), bool), [0, 0, 0])
    assert nothing.values["map"] is None
    assert "no entity is linked" in nothing.undefined["map"]


def test_bad_links_are_named():
    with pytest.raises(ValueError, match="entity 1: an answer is ranked twice"):
        metrics.is_hit([[1, 2, 3], [4, 5, 4]], [[1], [4]])
    with pytest.raises(ValueError, match="for 1 entities"):
        metrics.is_hit([[1, 2], [3, 4]], [[1]])
    with pytest.raises(ValueError, match="entity 0 has more hits than links"):
        metrics.compute_links(np.ones((1, 2), bool), [1])
