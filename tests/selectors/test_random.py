from support.pools import full_pool

from cdal.selectors.random import Random


def test_seeds_differ_and_every_image_has_its_turn():
    pool = full_pool(8, labelled=[0])
    seen = [Random().select(pool, 1, seed).indices[0] for seed in range(200)]
    assert set(seen) == set(range(1, 8))


def test_a_smaller_budget_is_the_beginning_of_a_larger():
    pool = full_pool()
    assert Random().select(pool, 5, 3).indices == Random().select(pool, 20, 3).indices[:5]
