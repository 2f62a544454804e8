"""Profiles of `benchmark_model`, in texts that were written after its sources, not on a phone."""

import re
import subprocess
import sys

import pytest
from benchmark_outputs import OPS, headed, printed, tables, total_us
from hypothesis import given
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError
from neas_tf.latency.phone_profile import OpTime, parse_profiles, profile_files, read_latencies

KNOWN = ("probe_000.tflite", "probe_001.tflite", "fit_000.tflite")
EXPECTED = 1000 * total_us(OPS)


@pytest.mark.parametrize("old", [True, False], ids=["old", "new"])
@pytest.mark.parametrize("csv", [True, False], ids=["csv", "text"])
@pytest.mark.parametrize("form", [tables, headed], ids=["bare", "headed"])
def test_every_form_is_read(form, csv, old):
    (profile,) = parse_profiles(form(OPS, old=old, csv=csv))
    assert profile.nanoseconds == pytest.approx(EXPECTED)
    assert [op.type for op in profile.ops] == [op[0] for op in OPS]
    assert [op.milliseconds for op in profile.ops] == [op[1] for op in OPS]
    names = [op[2] for op in OPS]
    if csv and not old:
        names = [name.replace(",", "\t") for name in names]
    assert [op.name for op in profile.ops] == names
    assert profile.model == "" and profile.threads is None


def test_what_a_run_prints():
    (profile,) = parse_profiles(printed(OPS))
    assert profile.model.endswith("probe_000.tflite") and profile.threads == 2
    assert profile.ops[0] == OpTime("CONV_2D", "[stem/Relu6]:0", 1.25, 1)
    assert profile.printed_us == total_us(OPS)


def test_a_log_with_several_runs_and_windows_line_ends():
    other = (("ADD", 0.75, "[x]:0"),)
    text = printed(OPS) + printed(other, "/sdcard/fit_000.tflite", old=True)
    first, second = parse_profiles(text.replace("\n", "\r\n"))
    assert first.nanoseconds == pytest.approx(EXPECTED)
    assert second.nanoseconds == pytest.approx(750_000) and second.model == "/sdcard/fit_000.tflite"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode("utf-16"),
        lambda text: b"\xfe\xff" + text.replace("\n", "\r\n").encode("utf-16-be"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-16-be"),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.replace("\t", "    ").encode(),
        lambda text: text.expandtabs(8).encode(),
        lambda text: text.replace("INFO:", "\x1b[1;32mINFO:\x1b[0m").encode(),
        lambda text: "\n".join(f"\x1b[36m{row}\x1b[m" for row in text.split("\n")).encode(),
        lambda text: (
            b"* daemon started successfully *\n\xff\n" + text.encode() + b"\n[ 1%] pulled\n"
        ),
        lambda text: "\n".join(f"11-28 18:44 77 I tflite: {r}" for r in text.split("\n")).encode(),
    ],
)
@pytest.mark.parametrize("old", [True, False], ids=["old", "new"])
def test_what_shells_and_editors_make_of_it(change, old, tmp_path):
    path = tmp_path / "profile.txt"
    path.write_bytes(change(printed(OPS, old=old)))
    found, threads = read_latencies([path], KNOWN)
    assert found == {"probe_000.tflite": pytest.approx(EXPECTED)} and threads == {2}


def test_commas_for_decimals_and_tables_of_spreadsheets():
    decimal = re.sub(r"(\d)\.(\d{3})\b", r"\1,\2", tables(OPS))
    assert "1,250" in decimal
    spaced = decimal.replace("\t", "  ")
    sheet = tables(OPS, csv=True).replace(", ", ",")
    for text in (decimal, spaced, sheet, sheet.replace(",", ";")):
        (profile,) = parse_profiles(text)
        assert [op.milliseconds for op in profile.ops] == [op[1] for op in OPS]
        assert profile.nanoseconds == pytest.approx(EXPECTED)


def test_what_is_no_text_is_told(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"PK\3\4\0\0\0\1\2" * 50 + b"\0a")
    with pytest.raises(NeasError, match="zero bytes; expected a text file, encoded as UTF-8"):
        read_latencies([tmp_path], KNOWN)


def test_the_inside_of_a_delegate_is_not_counted_twice():
    text = "Operator-wise Profiling Info for Regular Benchmark Runs:\n" + tables(OPS)
    inside = tables((("DelegateOpInvoke", 1.0, "Delegate/Convolution:0"),))
    (profile,) = parse_profiles(f"{text}Delegate internal: \n{inside}")
    assert len(profile.ops) == len(OPS) and profile.nanoseconds == pytest.approx(EXPECTED)


def test_other_subgraphs_are_not_counted():
    other = tables((("ADD", 9.0, "[x]:0"),))
    text = f"Primary graph profile:\n{tables(OPS)}\nSubgraph (index: 1) profile:\n{other}"
    (profile,) = parse_profiles(text)
    assert len(profile.ops) == len(OPS)


def test_an_operator_that_is_called_several_times():
    text = tables(OPS).replace(f"{1:9}\t[stem", f"{3:9}\t[stem")
    with pytest.raises(NeasError, match=r"3 operators take 4,375 µs together, but .* 1,875 µs"):
        parse_profiles(text)
    text = "\n".join(line for line in text.split("\n") if not line.startswith("Timings"))
    (profile,) = parse_profiles(text)
    assert profile.nanoseconds == pytest.approx(EXPECTED + 2 * 1_250_000)


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=30), st.booleans(), st.booleans())
def test_sums_of_any_table(microseconds, old, csv):
    ops = tuple((f"OP, {i} (X)", us / 1000, f"[t{i}]:{i}") for i, us in enumerate(microseconds))
    (profile,) = parse_profiles(headed(ops, old=old, csv=csv))
    assert len(profile.ops) == len(ops)
    assert profile.nanoseconds == pytest.approx(1000 * sum(microseconds), rel=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "INFO: Graph: [probe_000.tflite]\nINFO: Inference (avg): 1990\n",
        printed(OPS).split("Operator-wise")[0],
    ],
)
def test_no_table_is_an_error(text):
    with pytest.raises(NeasError, match=r"no table of operators in run order; .*op_profiling=true"):
        parse_profiles(text, "phone.txt")


def test_a_table_that_was_cut_off():
    lines = tables(OPS).split("\n")
    del lines[2]
    with pytest.raises(NeasError, match=r"phone.txt: the file: its 2 operators take 625 µs"):
        parse_profiles("\n".join(lines), "phone.txt")


def test_latencies_by_file(tmp_path):
    (tmp_path / "probe_001.csv").write_text(headed(OPS, csv=True))
    (tmp_path / "phone.txt").write_text(printed(OPS) + printed(OPS, "/x/fit_000.tflite"))
    (tmp_path / "notes.md").write_text("nothing")
    found, threads = read_latencies([tmp_path], KNOWN)
    assert set(found) == set(KNOWN) and threads == {2}
    assert all(value == pytest.approx(EXPECTED) for value in found.values())
    assert [p.name for p in profile_files([tmp_path])] == ["phone.txt", "probe_001.csv"]
    slower = tuple((kind, 3 * ms, name) for kind, ms, name in OPS)
    (tmp_path / "again.log").write_text(printed(slower))
    found, _ = read_latencies([tmp_path], KNOWN)
    assert found["probe_000.tflite"] == pytest.approx(2 * EXPECTED)


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(NeasError, match=r"from_profile: .*none.txt' cannot be read"):
        read_latencies([tmp_path / "none.txt"], KNOWN)
    with pytest.raises(NeasError, match=r"holds no \.csv"):
        read_latencies([tmp_path], KNOWN)
    (tmp_path / "other.csv").write_text(headed(OPS, csv=True))
    with pytest.raises(NeasError, match=r"model 'other', expected those of the manifest"):
        read_latencies([tmp_path / "other.csv"], KNOWN)


def test_importing_needs_no_tensorflow():
    code = "import neas_tf.latency.phone_profile, sys; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
