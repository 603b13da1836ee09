from __future__ import annotations

import numpy as np

from training.data.principal import fit_components


def pictures(count: int, kinds: int) -> np.ndarray:
    """Sums of so many patterns, each by a random amount, on a mean that is not zero."""
    rng = np.random.default_rng(count)
    patterns = rng.uniform(-10, 10, (kinds, 36))
    amounts = rng.uniform(-1, 1, (count, kinds))
    return np.rint(128 + amounts @ patterns).astype(np.uint8).reshape(count, 6, 6)


def test_as_many_components_as_patterns_draw_every_picture_again() -> None:
    made = pictures(500, kinds=4)
    components = fit_components(made, count=4)
    assert np.abs(components.redraw(made).astype(int) - made).max() <= 1  # whole numbers are not exact sums
    assert components.shares.sum() > 0.99


def test_fewer_components_keep_the_mean_and_lose_the_least_variance() -> None:
    made = pictures(500, kinds=8)
    drawn = fit_components(made, count=3).redraw(made)
    np.testing.assert_allclose(drawn.mean(axis=0), made.mean(axis=0), atol=0.1)
    shares = fit_components(made, count=36).shares
    assert (np.diff(shares) <= 1e-12).all()
    lost = ((drawn.astype(float) - made) ** 2).sum() / ((made - made.mean(axis=0)) ** 2).sum()
    assert abs(lost - shares[3:].sum()) < 0.01


def test_directions_are_orthonormal_and_pictures_of_other_sets_are_drawn_by_them() -> None:
    components = fit_components(pictures(300, kinds=6), count=5)
    np.testing.assert_allclose(components.directions @ components.directions.T, np.eye(5), atol=1e-9)
    other = pictures(40, kinds=3)
    again = components.redraw(other)
    assert again.shape == other.shape
    assert np.abs(components.redraw(again).astype(int) - again).max() <= 1  # nothing more to lose


def test_the_fit_does_not_depend_on_the_order_of_the_pictures() -> None:
    made = pictures(6_000, kinds=8)  # more than are added at a time
    first, turned = fit_components(made, count=4), fit_components(made[::-1], count=4)
    np.testing.assert_array_equal(first.redraw(made[:50]), turned.redraw(made[:50]))
