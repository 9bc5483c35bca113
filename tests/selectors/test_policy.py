import pytest
import torch
from safetensors.torch import load_file, save_file

from cdal.selectors.policy import BiLSTMPolicy, PolicyFileError

CPU = torch.device("cpu")


def policy_and_pool(n=10, inputs=3, cells=4):
    mixtures = torch.rand(n, 1, inputs, generator=torch.Generator().manual_seed(0))
    return BiLSTMPolicy.seeded(inputs, cells, seed=1, device=CPU, published=True), mixtures


def test_one_logit_an_image():
    policy, _ = policy_and_pool()
    assert policy(torch.rand(2, 5, 3)).shape == (2, 5)


def test_the_logits_are_those_of_the_windows():
    policy, mixtures = policy_and_pool()
    order = torch.tensor([7, 1, 3, 0, 9, 2, 8])
    logits = policy.logits(mixtures, order, window=3)
    # The last window is image 8, filled up with the first two of the order.
    windows = [[7, 1, 3], [0, 9, 2], [8, 7, 1]]
    expected = torch.cat([policy(mixtures[rows].flatten(1)[None])[0] for rows in windows])[:7]
    assert torch.allclose(logits, expected, atol=1e-6)


def test_a_window_may_be_longer_than_the_pool():
    policy, mixtures = policy_and_pool()
    order = torch.arange(10)
    whole = policy(mixtures.flatten(1)[None])[0]
    assert torch.allclose(policy.logits(mixtures, order, window=4096), whole, atol=1e-6)


def test_an_image_sees_the_images_before_and_after_it_in_its_window_alone():
    policy, mixtures = policy_and_pool()
    before = policy.logits(mixtures, torch.arange(10), window=5)
    changed = mixtures.clone()
    changed[2] += 1
    after = policy.logits(changed, torch.arange(10), window=5)
    assert (after != before).tolist() == [True] * 5 + [False] * 5


def test_a_long_pool_in_chunks_has_the_same_logits_and_gradients(monkeypatch):
    def run():
        policy, mixtures = policy_and_pool(n=23)
        logits = policy.logits(mixtures, torch.arange(23), window=4)
        (logits * torch.arange(23)).sum().backward()
        return logits.detach(), torch.cat(
            [p.grad.flatten() for p in policy.parameters() if p.requires_grad]
        )

    whole = run()
    monkeypatch.setattr("cdal.selectors.policy._CHUNK_IMAGES", 8)
    for a, b in zip(whole, run(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_backward_pass_of_a_long_pool_holds_one_chunk(monkeypatch):
    """For the backward pass, autograd keeps the images' indices, not their activations."""
    monkeypatch.setattr("cdal.selectors.policy._CHUNK_IMAGES", 64)
    policy, mixtures = policy_and_pool(n=6400, cells=16)
    kept = []

    def note(tensor):
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        policy.logits(mixtures, torch.arange(6400), window=16)
    assert sum(kept) < 6400 * 32  # 16 cells' gates alone would be 6,400 × 512 bytes


def test_inputs_are_standardised_over_the_images_given():
    policy, _ = policy_and_pool(inputs=3)
    # 1 and 3: mean 2, deviation 1. A column that is always 5 is shifted, not amplified.
    mixtures = torch.tensor([[[1.0, 5.0, 0.0]], [[3.0, 5.0, 8.0]], [[99.0, 99.0, 99.0]]])
    policy.standardise(mixtures, torch.tensor([0, 1]))
    assert policy.shift.tolist() == [2, 5, 4]
    assert policy.scale.tolist() == [1, 1, 4]


def test_the_weights_depend_on_the_seed_alone():
    def weights(seed):
        return BiLSTMPolicy.seeded(3, 4, seed, CPU).state_dict()["lstm.weight_ih_l0"]

    state = torch.random.get_rng_state()
    first = weights(5)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.rand(3)
    assert torch.equal(first, weights(5))
    assert not torch.equal(first, weights(6))


def test_a_saved_policy_comes_back_with_its_standardisation(tmp_path):
    policy, mixtures = policy_and_pool()
    policy.standardise(mixtures, torch.arange(10))
    path = tmp_path / "new folder" / "policy.safetensors"
    policy.save(path)
    other = BiLSTMPolicy.seeded(3, 4, seed=99, device=CPU, published=True)
    other.load(path)
    order = torch.arange(10)
    assert torch.equal(
        other.logits(mixtures, order, window=5), policy.logits(mixtures, order, window=5)
    )
    assert [p.name for p in path.parent.iterdir()] == ["policy.safetensors"]


def test_a_file_of_another_shape_is_refused_and_changes_nothing(tmp_path):
    path = tmp_path / "policy.safetensors"
    BiLSTMPolicy.seeded(5, 4, seed=1, device=CPU).save(path)
    policy, _ = policy_and_pool()
    before = policy.head.weight.clone()
    with pytest.raises(PolicyFileError, match=r"policy.safetensors .* is \(5,\), not \(3,\)"):
        policy.load(path)
    assert torch.equal(policy.head.weight, before)


def test_other_files_are_refused_with_a_reason(tmp_path):
    path = tmp_path / "policy.safetensors"
    policy, _ = policy_and_pool()
    policy.save(path)
    good = load_file(path)

    def refused(tensors):
        save_file(tensors, path)
        with pytest.raises(PolicyFileError) as error:
            policy.load(path)
        return str(error.value)

    assert "tensor shift is missing" in refused({k: v for k, v in good.items() if k != "shift"})
    assert "tensor more does not belong" in refused({**good, "more": torch.zeros(1)})
    assert "head.bias holds NaN" in refused({**good, "head.bias": torch.tensor([torch.nan])})
    path.write_bytes(b"\x80\x04N.")  # a pickle of None
    with pytest.raises(PolicyFileError, match="not a readable safetensors file"):
        policy.load(path)
