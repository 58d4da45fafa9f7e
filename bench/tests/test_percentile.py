"""A percentile needs samples beyond it, and turns come in another order in every round."""

import pytest

from bench.runner import percentile, turns


@pytest.mark.parametrize(
    ("samples", "share", "carried"),
    [
        (20, 0.5, True),
        (19, 0.5, False),
        (999, 0.99, False),
        (1_000, 0.99, True),
        (224, 0.999, False),
        (10_000, 0.999, True),
    ],
)
def test_ten_samples_lie_beyond_a_percentile(samples: int, share: float, carried: bool) -> None:
    assert percentile.carried(samples, share) is carried
    found = percentile.at(range(samples), share)
    assert (found is not None) is carried
    if found is not None:
        assert samples - found >= percentile.BEYOND
    assert percentile.shown(found) == ("–" if found is None else f"{found:,.1f}")


def test_every_round_has_an_order_of_its_own_and_every_run_the_same() -> None:
    sides = list("abcdefgh")
    rounds = [turns.order(sides, number) for number in range(5)]
    assert rounds == [turns.order(sides, number) for number in range(5)]
    assert all(sorted(one) == sides for one in rounds)
    assert len({"".join(one) for one in rounds}) == 5
    assert len({one[0] for one in rounds}) > 1, "not always the same side begins"
