"""The benchmark of training steps at tiny size: what is compared is the same, all of it reports."""

import importlib.util
import json

import numpy as np
import pytest

from benchmarks import supernet_step
from benchmarks.parts.supernet_cases import CASES, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, batch
from benchmarks.parts.workers import workers
from neas_tf.common.errors import NeasError
from neas_tf.cost.cost_table import CostTable
from neas_tf.space.search_space import SearchSpace

TINY, ECHO = CASES["tiny"], "tests.support.echo_worker"
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


@needs_torch
def test_the_other_supernet_has_our_parameters():
    from benchmarks.parts.torch_supernet import Supernet

    for case in (TINY, CASES["k1"]):
        table = CostTable(case.space)
        model = Supernet(case.space, case.num_paths)
        expected = table.operators["params"].sum() + table.fixed("params", case.num_paths)
        assert sum(p.numel() for p in model.parameters()) == expected


@needs_torch
def test_the_other_supernet_moves_only_what_was_drawn_and_divides_the_trunks_gradient():
    import torch

    from benchmarks.parts.torch_supernet import Supernet, make_optimizer, train_step

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


def test_our_step_has_the_stages_recipe():
    from neas_tf.config.settings import SupernetConfig

    stage = SupernetConfig()
    sgd = stage.trainer.optimizer_config.optimizer.sgd
    assert (stage.weight_decay, sgd.momentum) == (WEIGHT_DECAY, MOMENTUM) and LEARNING_RATE > 0


def test_everything_of_a_case_is_reported(tmp_path):
    arguments = ["--cases=tiny", "--architectures=2", *([] if HAS_TORCH else ["--no_torch"])]
    assert supernet_step.main([*arguments, f"--output={tmp_path / 'out.json'}"]) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    found = report["cases"]["tiny"]
    names = ["ours", *(supernet_step.TORCH_LAYOUTS if HAS_TORCH else ())]
    assert list(found["implementations"]) == names and list(found["ratios"]) == names[1:]
    for one in found["implementations"].values():
        assert one["images_per_cpu_second"] > 0 and one["memory_gb"] > 0
    macs = CostTable(TINY.space).costs(TINY.draws(2), 2, ("macs",))["macs"]
    assert found["macs_median"] == np.median(macs) and 0 < found["limit"]["share"] < 1
    until = list(found["first_step"]["until_cpu_s"].values())
    assert until == sorted(until) and found["first_step"]["beyond_import_cpu_s"] < until[-1]
    assert found["versions"]["tensorflow"].startswith("2.")


def test_bad_input_ends_with_2(capsys):
    for argument, text in {"--cases=big": "--cases", "--runs=0": "--runs: received 0"}.items():
        assert supernet_step.main([argument]) == 2
        assert text in capsys.readouterr().err


def test_workers_answer_in_turn_and_time_themselves():
    with workers({"a": (ECHO, ()), "b": (ECHO, ())}, threads=3) as found:
        for text in ("one", "zwölf\n"):
            assert [w.call("echo", x=text).value for w in found.values()] == [[text, "3"]] * 2
        turn = found["a"].call("busy", seconds=0.05)  # what it prints is no answer
        assert turn.value is None and turn.cpu >= 0.05 and turn.wall > 0
        with pytest.raises(NeasError, match="ValueError: too bad"):
            found["a"].call("fail", text="too bad")
        assert found["a"].call("echo", x=1).value == [1, "3"]  # it continues after an error


def test_a_worker_that_dies_says_why():
    with pytest.raises(NeasError, match="last words"), workers({"a": (ECHO, ())}) as found:
        found["a"].call("die")
