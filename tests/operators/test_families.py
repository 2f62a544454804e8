"""Operator families: names, programs, costs, and what every form of an operator agrees on."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mixed_space import MIXED

from neas_tf.common.errors import NeasError
from neas_tf.cost.cost_table import CostTable, operator_amounts
from neas_tf.ensemble.model import build_ensemble, model_slots
from neas_tf.operators import Operator, base, batch_norms, bottleneck_width, operator_steps
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import LayerSpec, SearchSpace, Stage


def layer(c_in=16, c_out=16, stride=1, size=(8, 6)) -> LayerSpec:
    out = base.reduced(size, stride)
    return LayerSpec(1, 0, c_in, c_out, stride, size, out, ())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fused_k3e4", {"kernel": 3, "expansion": 4, "squeeze": False, "activation": "swish"}),
        ("fused_k5e2_se_relu", {"kernel": 5, "squeeze": True, "activation": "relu"}),
        ("uib_s3m5e4", {"start": 3, "middle": 5, "kernel": 5, "activation": "relu"}),
        ("uib_m3e4_se", {"start": 0, "middle": 3, "squeeze": True}),
        ("uib_s7e2_swish", {"start": 7, "middle": 0, "activation": "swish"}),
        ("uib_e4", {"start": 0, "middle": 0, "kernel": 0, "expansion": 4}),
    ],
)
def test_names(name, expected):
    operator = Operator.parse(name)
    assert operator.name == name
    assert {key: getattr(operator, key) for key in expected} == expected


@pytest.mark.parametrize(
    "name", ["fused_k2e4", "fused_k3", "uib_", "uib_m4e4", "uib_m3s3e4", "uib_m3e4_relu", "UIB_e4"]
)
def test_names_that_nearly_are_operators(name):
    with pytest.raises(NeasError, match="uib_s3m5e4"):
        Operator.parse(name)


@given(st.sampled_from("sm k"), st.sampled_from((1, 3, 5, 7)), st.integers(1, 12), st.booleans())
def test_one_operator_has_one_name(form, kernel, expansion, squeeze):
    name = f"uib_{form.strip()}{kernel}e{expansion}" + ("_se" if squeeze else "")
    try:
        operator = Operator.parse(name)
    except NeasError:
        return
    assert operator.name == name and Operator.parse(operator.name) == operator


def test_steps_of_the_universal_bottleneck():
    where = layer(16, 24, 2)
    steps = operator_steps(Operator.parse("uib_s3m5e4_se"), where)
    assert [(s.kind, s.role, s.kernel, s.stride) for s in steps] == [
        ("depthwise", "start_dw", 3, 1),
        ("conv", "expand", 1, 1),
        ("depthwise", "dw", 5, 2),
        ("squeeze_excite", "se", 1, 1),
        ("conv", "project", 1, 1),
    ]
    assert batch_norms(steps) == ("start_dw_bn", "expand_bn", "dw_bn", "project_bn")
    assert [s.c_out for s in steps] == [16, 64, 64, 64, 24]
    assert steps[-1].out_size == (4, 3)
    start_only = operator_steps(Operator.parse("uib_s3e4"), where)
    assert [s.stride for s in start_only] == [2, 1, 1]


def test_a_feed_forward_bottleneck_cannot_reduce():
    assert not Operator.parse("uib_e4").fits(16, 24, 2)
    space = SearchSpace(
        stages=(Stage(16, 2, 2),), operators=("uib_e4", "k3e4"), min_split=0, max_split=2
    )
    assert [x.operators for x in space.layers] == [("k3e4",), ("uib_e4", "k3e4")]
    with pytest.raises(NeasError, match=r"fits layer 1 .*stride 2"):
        dataclasses.replace(space, operators=("uib_e4", "skip"))


def test_macs_of_the_fused_mbconv_by_hand():
    where, width = layer(16, 16, 1, (8, 6)), bottleneck_width(16, 4)
    found = operator_amounts(where, Operator.parse("fused_k3e4"))
    assert found.macs == 48 * (9 * 16 * width + width * 16)
    assert found.params == 9 * 16 * width + width * 16 + 2 * width + 2 * 16


@pytest.mark.parametrize("name", [n for n in MIXED.operators if n != "skip"])
def test_cost_equals_the_layers_of_the_network(name):
    """Parameters and MACs of the table, against the layers that Keras builds."""
    space = dataclasses.replace(
        MIXED,
        stages=(Stage(8, 1, 2 if Operator.parse(name).fits(8, 8, 2) else 1),),
        operators=(name,),
        min_split=1,
        max_split=1,
    )
    architecture = Architecture(1, ((name,),))
    model, cost = build_ensemble(architecture, space), CostTable(space).cost(architecture)
    assert cost.params == sum(int(v.shape.num_elements()) for v in model.trainable_variables)
    macs = 0
    for one in model.layers:
        kind = type(one).__name__
        if kind in ("Conv2D", "DepthwiseConv2D"):
            macs += (
                one.output_shape[1] * one.output_shape[2] * int(one.weights[0].shape.num_elements())
            )
        elif kind == "Dense":
            macs += int(one.kernel.shape.num_elements())
    assert cost.macs == macs
    slots = [slot for slot in model_slots(model) if slot.part == "layer"]
    assert {slot.operator for slot in slots} == {name}
    names = {slot.role.split("/")[0] for slot in slots}
    steps = operator_steps(Operator.parse(name), space.layers[0])
    assert names == {sublayer for step in steps for sublayer in step.sublayers}


def test_spaces_without_the_new_fields_keep_their_identity():
    assert "activation" not in SearchSpace().to_dict()
    assert SearchSpace().to_dict()["stages"][0] == {"channels": 24, "layers": 4, "stride": 2}
    assert SearchSpace.from_dict(MIXED.to_dict()) == MIXED
    assert MIXED.fingerprint() != dataclasses.replace(MIXED, activation="swish").fingerprint()


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (
            [{"channels": 8, "layers": 1, "stride": 1, "operators": ["k7e7"]}],
            r"stages\[0\]\.operators.*k7e7",
        ),
        (
            [{"channels": 8, "layers": 1, "stride": 1, "operators": ["skip"]}],
            r"stages\[0\].*besides skip",
        ),
        ([{"channels": 8, "layers": 1, "stride": 1, "operators": "k3e2"}], "a list of names"),
    ],
)
def test_bad_stage_operators(stage, message):
    with pytest.raises(NeasError, match=message):
        SearchSpace.from_dict(MIXED.to_dict() | {"stages": stage, "max_split": 1})


def broken(build, **changes):
    """An unregistered operator with another program."""

    class Broken(Operator):
        pass

    Broken.build = lambda self, make, x, layer: build(make, x, layer)
    return Broken("broken", **changes)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda m, x, w: m.conv(x, "a", 8), "output.*channels=8"),
        (lambda m, x, w: m.conv(m.conv(x, "a", 8), "a", 16), "role.*new lower-case"),
        (lambda m, x, w: m.conv(x, "a", 16, 2), "odd sizes"),
        (lambda m, x, w: m.conv(x, "a", 16, activation="gelu"), "activation"),
        (lambda m, x, w: m.conv(m.squeeze_excite(x), "a", 16), "'project'"),
        (lambda m, x, w: m.squeeze_excite(x), "last step"),
    ],
)
def test_programs_that_break_a_rule(build, message):
    with pytest.raises(NeasError, match=message):
        operator_steps(broken(build), layer())


def test_an_operator_of_ones_own_in_one_file(tmp_path):
    """NEAS_OPERATORS: the file is loaded by whatever reads a name, in any command."""
    path = tmp_path / "own.py"
    path.write_text(
        """
import re
from neas_tf.operators import Operator, register

@register
class Separable(Operator):
    PATTERN = re.compile(r"separable_k([357])")
    EXAMPLE = "separable_k3"

    @classmethod
    def from_match(cls, match):
        return cls(match[0], int(match[1]))

    def build(self, make, x, layer):
        x = make.depthwise(x, "dw", self.kernel, layer.stride, activation="relu")
        return make.conv(x, "project", layer.c_out)
"""
    )
    code = (
        "from neas_tf.space.search_space import SearchSpace, Stage; from neas_tf.cost.cost_table import CostTable;"
        "s = SearchSpace(stages=(Stage(16, 1, 1),), operators=('separable_k5', 'skip'), "
        "min_split=0, max_split=1, input_size=(8, 8), stem_stride=1);"
        "print(CostTable(s).operators['macs'].tolist())"
    )
    run = [sys.executable, "-c", code]
    found = subprocess.run(
        run, capture_output=True, text=True, env={"NEAS_OPERATORS": str(path)}, check=True
    )
    assert found.stdout.strip() == f"[[{64 * (25 * 16 + 16 * 16)}, 0]]"
    missing = subprocess.run(
        run,
        capture_output=True,
        text=True,
        env={"NEAS_OPERATORS": str(tmp_path / "no.py")},
        check=False,
    )
    assert re.search(r"NEAS_OPERATORS: .*no\.py' cannot be loaded", missing.stderr)


def test_a_family_needs_an_example_of_its_own():
    with pytest.raises(NeasError, match="MBConv does not take"):
        base.register(type("Twin", (Operator,), {"PATTERN": re.compile("k3e4"), "EXAMPLE": "k3e4"}))
    with pytest.raises(NeasError, match="PATTERN takes"):
        base.register(type("Odd", (Operator,), {"PATTERN": re.compile("odd"), "EXAMPLE": "other"}))
