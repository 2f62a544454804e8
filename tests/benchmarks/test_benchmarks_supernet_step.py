"""The benchmark of training steps at tiny size: what is compared is the same, and all of it reports."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest

from benchmarks import supernet_step
from benchmarks.supernet_cases import CASES, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, batch
from benchmarks.supernet_worker import own_space, traced_alone
from neas_tf.cost.cost_table import CostTable
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.zoo import load_architecture

TINY = CASES["tiny"]
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="PyTorch is not installed")


def test_cases_are_the_papers_space_at_other_sizes():
    paper = SearchSpace()
    for name, sizes in (("k1", (16, 8, 4, 4, 2)), ("k2", (16, 16, 8, 8, 4))):
        space = CASES[name].space
        assert [(s.c_in, s.c_out) for s in space.layers] == [
            (s.c_in, s.c_out) for s in paper.layers
        ]
        assert tuple(layer.out_size[0] for layer in space.layers[::4]) == sizes
        assert space.operators == paper.operators and space.split_points == paper.split_points
    images, labels = batch(TINY)
    assert images.shape == (4, 8, 8, 3) and labels.max() < 4
    np.testing.assert_array_equal(TINY.draws(3), TINY.draws(5)[:3])


def test_an_ensembles_own_space_holds_its_operators_and_nothing_else():
    space = TINY.space
    cost = CostTable(space)
    for code in TINY.draws(40):
        own, row = own_space(space, code, 2)
        architecture = Architecture.from_array(row, own).check_in(own)
        before = Architecture.from_array(code, space)
        assert CostTable(own).cost(architecture).macs == cost.cost(before).macs
        for m, layer in enumerate(own.layers):
            assert set(layer.operators) == {path[m] for path in architecture.paths}
        skipped = sum(set(c) == {"skip"} for c in zip(*before.paths, strict=True))
        assert own.num_layers == space.num_layers - skipped


def test_an_ensemble_traced_alone_has_no_choice_in_its_graph():
    code = next(c for c in TINY.draws(40) if 0 < c[0] < 3)
    trainer = traced_alone(TINY, code)
    kinds = {op.type for op in trainer.traced.graph.get_operations()}
    assert "Conv2D" in kinds and not {kind for kind in kinds if "Case" in kind or "If" in kind}
    losses = [trainer.step(0, *batch_tensors()) for _ in range(8)]
    assert losses[-1] < losses[0]


def batch_tensors():
    import tensorflow as tf

    return tuple(map(tf.constant, batch(TINY)))


@needs_torch
def test_the_other_supernet_has_our_parameters():
    from benchmarks.torch_supernet import Supernet

    for case in (TINY, CASES["k1"]):
        table = CostTable(case.space)
        model = Supernet(case.space, case.num_paths)
        expected = table.operators["params"].sum() + table.fixed("params", case.num_paths)
        assert sum(p.numel() for p in model.parameters()) == expected


@needs_torch
def test_the_other_supernet_moves_only_what_was_drawn_and_divides_the_trunks_gradient():
    import torch

    from benchmarks.torch_supernet import Supernet, make_optimizer, train_step

    torch.manual_seed(0)
    model = Supernet(TINY.space, 2).train()
    optimizer = make_optimizer(model)
    images, labels = batch(TINY)
    images, labels = torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)
    codes = [c for c in TINY.draws(60) if c[0] == 1 and c[2] != c[5]][:2]
    for code in codes:
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        train_step(model, optimizer, images, labels, code)
        rows = np.reshape(code[1:], (2, 3))
        drawn = {
            f"layers.{m}.{TINY.space.operators[i]}." for m in range(3) for i in set(rows[:, m])
        }
        for name, parameter in model.named_parameters():
            mine = not name.startswith("layers.") or any(name.startswith(d) for d in drawn)
            moved = not torch.equal(before[name], parameter)
            assert moved == mine or (mine and parameter.ndim == 1), name
    # The gradient of the stem is half of what it is without the hook.
    optimizer.zero_grad(set_to_none=True)
    sum(torch.nn.functional.cross_entropy(y, labels) for y in model(images, codes[0])).backward()
    divided = model.stem[0][0].weight.grad.clone()
    optimizer.zero_grad(set_to_none=True)
    x = model.stem(images)
    x = model.layers[0][TINY.space.operators[codes[0][1]]](x)
    total = 0
    for k, head in enumerate(model.heads):
        y = x
        for m in (1, 2):
            y = model.layers[m][TINY.space.operators[np.reshape(codes[0][1:], (2, 3))[k, m]]](y)
        total = total + torch.nn.functional.cross_entropy(head(y), labels)
    total.backward()
    torch.testing.assert_close(divided * 2, model.stem[0][0].weight.grad)


@needs_torch
def test_the_other_ensemble_has_our_parameters_and_recipe():
    from benchmarks import torch_ensemble
    from neas_tf.config.settings import RetrainConfig

    space = dataclasses.replace(SearchSpace(), input_size=(32, 32))
    for name in ("neas_s", "neas_l"):
        architecture = load_architecture(name, space)
        model = torch_ensemble.Ensemble(architecture, space)
        expected = CostTable(space).cost(architecture).params
        assert sum(p.numel() for p in model.parameters()) == expected
    stage = RetrainConfig()
    optimizer = stage.trainer.optimizer_config
    rmsprop = optimizer.optimizer.rmsprop
    assert (rmsprop.rho, rmsprop.momentum, rmsprop.epsilon) == (0.9, 0.9, torch_ensemble.EPSILON)
    assert (rmsprop.rho, rmsprop.momentum) == (torch_ensemble.RHO, torch_ensemble.MOMENTUM)
    assert optimizer.learning_rate.cosine.initial_learning_rate == torch_ensemble.RATE
    assert optimizer.ema.average_decay == torch_ensemble.AVERAGE
    assert (stage.weight_decay, stage.dropout, stage.label_smoothing) == (
        torch_ensemble.WEIGHT_DECAY,
        torch_ensemble.DROPOUT,
        torch_ensemble.SMOOTHING,
    )


def test_our_step_has_the_stages_recipe():
    from neas_tf.config.settings import SupernetConfig

    stage = SupernetConfig()
    sgd = stage.trainer.optimizer_config.optimizer.sgd
    assert (stage.weight_decay, sgd.momentum) == (WEIGHT_DECAY, MOMENTUM) and LEARNING_RATE > 0


def test_everything_of_a_case_is_reported(tmp_path):
    arguments = ["--cases=tiny", "--architectures=2", "--alone=1", "--no_bfloat16"]
    arguments += [] if HAS_TORCH else ["--no_torch"]
    assert supernet_step.main([*arguments, f"--output={tmp_path / 'out.json'}"]) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    found = report["cases"]["tiny"]
    names = ["ours", *(supernet_step.TORCH_LAYOUTS if HAS_TORCH else ())]
    assert list(found["implementations"]) == names and list(found["ratios"]) == names[1:]
    for one in found["implementations"].values():
        assert one["images_per_cpu_second"] > 0 and one["memory_gb"] > 0
    macs = CostTable(TINY.space).costs(TINY.draws(2), 2, ("macs",))["macs"]
    assert found["macs_median"] == np.median(macs)
    assert 0 < found["limit"]["share"] < 1 and found["alone"]["ratio"] > 0
    until = list(found["first_step"]["until_cpu_s"].values())
    assert until == sorted(until) and found["first_step"]["beyond_import_cpu_s"] < until[-1]
    rows = {row["key"]: row for row in report["targets"]}
    assert rows["tiny_bfloat16"]["value"] is None and rows["tiny_memory"]["met"] is not None
    assert report["versions"]["tensorflow"].startswith("2.")


def test_bad_input_ends_with_2(capsys):
    for argument, text in {"--cases=big": "--cases", "--runs=0": "--runs: received 0"}.items():
        assert supernet_step.main([argument]) == 2
        assert text in capsys.readouterr().err
