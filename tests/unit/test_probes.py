"""Transferability, shift and similarity against other implementations and against calculations by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import BayesianRidge, LogisticRegression, Ridge
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier

from tlscale.errors import DataError
from tlscale.probes import shift, transferability
from tlscale.probes.arrays import Floats, Ints, Linear, held_out_predictions
from tlscale.probes.similarity import cka


def clusters(distance: float, *, classes: int = 3, each: int = 30, seed: int = 0) -> tuple[Floats, Ints]:
    """Gaussian clouds in six dimensions, their centres `distance` apart or so."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = generator.normal(size=(classes, 6)) * distance
    return centres[labels] + generator.normal(size=(len(labels), 6)), labels


def test_logme_is_the_evidence_that_scikit_learn_maximises() -> None:
    x, labels = clusters(1.0)
    expected = []
    for k in range(3):
        model = BayesianRidge(
            alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, fit_intercept=False, compute_score=True,
            max_iter=1000, tol=1e-12,
        ).fit(x, (labels == k).astype(float))  # fmt: skip
        expected.append(model.scores_[-1] / len(x))
    assert transferability.logme(x, labels) == pytest.approx(np.mean(expected), abs=1e-6)


def test_logme_with_more_dimensions_than_rows() -> None:
    x, labels = clusters(1.0, each=4)
    wide = np.hstack([x, np.zeros((len(x), 20))])
    assert np.isfinite(transferability.logme(wide, labels))


def test_h_score_by_its_definition() -> None:
    x, labels = clusters(1.0)
    covariance, shrinkage = ledoit_wolf(x)
    assert transferability.ledoit_wolf(x - x.mean(axis=0)) == pytest.approx(shrinkage, abs=1e-12)
    means = np.stack([x[labels == k].mean(axis=0) for k in labels])
    between = (1 - shrinkage) * np.cov(means, rowvar=False, bias=True)
    expected = np.trace(np.linalg.inv(covariance) @ between)
    assert transferability.h_score(x, labels) == pytest.approx(expected, rel=1e-9)
    assert 0 < expected < 2


def test_leep_by_hand() -> None:
    chances = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    labels = np.array([0, 0, 1])
    given_first, given_second = (0.8 + 0.6) / 1.5, (0.2 + 0.4) / 1.5
    expected = np.mean(
        [
            np.log(given_first * 0.8 + given_second * 0.2),
            np.log(given_first * 0.6 + given_second * 0.4),
            np.log((1 - given_first) * 0.1 + (1 - given_second) * 0.9),
        ]
    )
    assert transferability.leep(chances, labels) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(DataError, match="summing to 1"):
        transferability.leep(chances * 2, labels)


def test_nleep_knows_clusters_from_noise() -> None:
    x, labels = clusters(20.0)
    assert transferability.nleep(x, labels) == pytest.approx(0.0, abs=1e-3)
    shuffled = np.random.default_rng(3).permutation(labels)
    assert -np.log(3) - 1e-9 <= transferability.nleep(x, shuffled) < -0.7


def test_nleep_s_mixture_is_at_rest_where_scikit_learn_s_is() -> None:
    generator = np.random.default_rng(0)
    clouds = [((0, 0), (1, 2), 250), ((3, 2), (0.7, 1), 150)]
    x = np.concatenate([generator.normal(mean, spread, (rows, 2)) for mean, spread, rows in clouds])
    ours = transferability._responsibilities(x, 2, seed=1)
    assert np.abs(ours - ours.round()).max() > 0.4, "some rows may be of either"
    weights = ours.sum(axis=0)
    means = ours.T @ x / weights[:, None]
    variances = ours.T @ x**2 / weights[:, None] - means**2
    theirs = GaussianMixture(
        2, covariance_type="diag", weights_init=weights / len(x), means_init=means,
        precisions_init=1 / variances, tol=1e-9, max_iter=300, random_state=0,
    )  # fmt: skip
    assert np.abs(theirs.fit(x).predict_proba(x) - ours).max() < 0.005


def test_transrate_is_the_papers_listing_on_classes_of_one_size() -> None:
    x, labels = clusters(1.0)

    def rate(z: Floats) -> float:
        inside = np.eye(z.shape[1]) + 1 / (len(z) * 1e-4) * z.T @ z
        return 0.5 * float(np.linalg.slogdet(inside)[1])

    centred = x - x.mean(axis=0)
    expected = rate(centred) - sum(rate(centred[labels == k]) for k in range(3)) / 3
    assert transferability.transrate(x, labels) == pytest.approx(expected, rel=1e-10)


def test_neighbours_vote_as_in_scikit_learn() -> None:
    x, labels = clusters(0.8)
    right = 0
    for row in range(len(x)):
        others = np.arange(len(x)) != row
        model = KNeighborsClassifier(1, metric="cosine").fit(x[others], labels[others])
        right += int(model.predict(x[[row]])[0] == labels[row])
    assert transferability.nearest_neighbours(x, labels, neighbours=1) == pytest.approx(right / len(x))


def test_the_linear_classifier_is_scikit_learns() -> None:
    x, labels = clusters(0.5)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    model = LogisticRegression(C=1.0, tol=1e-8, max_iter=1000).fit(scaled, labels)
    own = Linear(x, labels, 3, c=1.0)
    assert own.probabilities(x) == pytest.approx(model.predict_proba(scaled), abs=2e-3)


def test_the_linear_accuracy_is_that_of_ridge_regression_without_the_row() -> None:
    x, labels = clusters(0.6)
    targets = np.eye(3)[labels]
    energies = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    found = []
    for penalty in np.logspace(-4, 2, 7) * energies.mean():
        alone = np.empty_like(targets)
        for row in range(len(x)):
            others = np.arange(len(x)) != row
            alone[row] = Ridge(alpha=penalty).fit(x[others], targets[others]).predict(x[[row]])[0]
        found.append((((targets - alone) ** 2).mean(), (alone.argmax(axis=1) == labels).mean()))
    assert transferability.linear_accuracy(x, labels) == pytest.approx(min(found)[1])


@pytest.mark.parametrize("measure", transferability.MEASURES.values(), ids=transferability.MEASURES)
def test_every_measure_prefers_features_that_tell_classes_apart(
    measure: Callable[[Floats, Ints], float],
) -> None:
    near, labels = clusters(0.3)
    far, _ = clusters(3.0)
    assert measure(far, labels) > measure(near, labels)
    assert measure(far, np.random.default_rng(1).permutation(labels)) < measure(far, labels)


def test_nothing_is_changed_and_bad_input_is_named() -> None:
    x, labels = clusters(1.0)
    before = x.copy()
    for measure in transferability.MEASURES.values():
        measure(x, labels)
    assert (x == before).all()
    x[4, 2] = np.nan
    with pytest.raises(DataError, match=r"rows \[4\] are not finite"):
        transferability.logme(x, labels)
    with pytest.raises(DataError, match="same label"):
        transferability.h_score(before, np.zeros(len(before), dtype=np.int64))
    with pytest.raises(DataError, match="89 labels for 90 rows"):
        transferability.transrate(before, labels[:-1])


def test_held_out_rows_are_never_learned_from() -> None:
    """Random labels on features in as many dimensions as rows: seen rows could all be learned."""
    generator = np.random.default_rng(0)
    x, labels = generator.normal(size=(200, 200)), generator.integers(0, 2, 200)
    guessed = held_out_predictions(x, labels, 2, parts=5, seed=0)
    assert abs((guessed == labels).mean() - 0.5) < 0.12


def test_mmd_by_its_double_sum() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(7, 3)), generator.normal(1.0, size=(5, 3))
    both = np.vstack([x, y])
    pairs = [((a - b) ** 2).sum() for i, a in enumerate(both) for b in both[i + 1 :]]
    width = np.median(pairs)

    def mean(one: Floats, other: Floats, *, same: bool) -> float:
        return float(
            np.mean(
                [
                    np.exp(-((a - b) ** 2).sum() / width)
                    for i, a in enumerate(one)
                    for j, b in enumerate(other)
                    if not (same and i == j)
                ]
            )
        )

    expected = mean(x, x, same=True) + mean(y, y, same=True) - 2 * mean(x, y, same=False)
    assert shift.maximum_mean_discrepancy(x, y).value == pytest.approx(expected, abs=1e-12)


def test_shift_is_seen_and_its_absence_too() -> None:
    generator = np.random.default_rng(0)
    x, same = generator.normal(size=(150, 4)), generator.normal(size=(150, 4))
    moved = same + 3.0
    assert shift.proxy_a_distance(x, moved) > 1.8
    assert abs(shift.proxy_a_distance(x, same)) < 0.4
    assert shift.classifier_two_sample(x, moved).p < 1e-6
    assert shift.maximum_mean_discrepancy(x, moved).p == pytest.approx(1 / 201)
    assert shift.coral_distance(x, moved) == pytest.approx(shift.coral_distance(x, same))
    expected = ((np.cov(x.T) - np.cov(3 * x.T)) ** 2).sum() / (4 * 16)
    assert shift.coral_distance(x, 3 * x) == pytest.approx(expected)


def test_p_values_of_samples_from_one_source_are_spread_evenly() -> None:
    found: dict[str, list[float]] = {"c2st": [], "mmd": []}
    for seed in range(60):
        generator = np.random.default_rng(seed)
        x, y = generator.normal(size=(60, 3)), generator.normal(size=(60, 3))
        found["c2st"].append(shift.classifier_two_sample(x, y, seed=seed).p)
        found["mmd"].append(shift.maximum_mean_discrepancy(x, y, permutations=60, seed=seed).p)
    for name, chances in found.items():
        below = np.mean(np.array(chances) <= 0.1)
        assert below <= 0.2, f"{name}: false alarms in {below:.0%} of the samples at p <= 0.1"
        assert 0.35 <= np.mean(chances) <= 0.68, name


def test_cka_sees_rotation_and_scale_as_nothing() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(50, 6))
    rotation, _ = np.linalg.qr(generator.normal(size=(6, 6)))
    assert cka(x, x @ rotation * 3.0) == pytest.approx(1.0)
    assert cka(x, generator.normal(size=(50, 6))) < 0.4
    kernel, other = ((z - z.mean(0)) @ (z - z.mean(0)).T for z in (x, x**3))
    expected = (kernel * other).sum() / np.sqrt((kernel**2).sum() * (other**2).sum())
    assert cka(x, x**3) == pytest.approx(expected)
    with pytest.raises(DataError, match="same rows"):
        cka(x, x[:-1])
