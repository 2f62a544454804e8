"""Texts in the form of TFLite's `benchmark_model`, old and new columns, table and CSV.

Written from the layout of the public sources (stats calculator and profile summarizer).
"""

OPS = (
    ("CONV_2D", 1.25, "[stem/Relu6]:0"),
    ("DEPTHWISE_CONV_2D", 0.5, "[block/dw, block/bias]:1"),
    ("Fully Connected (NC, F32) GEMM", 0.125, "Delegate/Fully Connected (NC, F32) GEMM:2"),
)
TITLE = "=" * 30


def total_us(ops) -> float:
    return 1000.0 * sum(ms for _, ms, _ in ops)


def rows(ops, old: bool, csv: bool) -> list[str]:
    """The lines of a table in run order."""
    result, begin, total = [], 0.0, total_us(ops) / 1000
    for kind, ms, name in ops:
        share, calls = 100 * ms / total, 0 if old else 1
        if csv:
            start = f"{begin:g}, " if old else ""
            safe = name if old else name.replace(",", "\t")
            result.append(
                f"{kind}, {start}{ms * 1.1:g}, {ms:g}, {share:g}%, {share:g}%, 0, {calls}, {safe}"
            )
        else:
            start = f"\t{begin:17.3f}" if old else ""
            width = 24 if old else 40
            result.append(
                f"\t{kind:>{width}}{start}\t{ms * 1.1:9.3f}\t{ms:9.3f}\t{share:7.3f}%"
                f"\t{share:7.3f}%\t{0:10.3f}\t{calls:9}\t{name}"
            )
        begin += ms
    return result


def header(old: bool, csv: bool) -> str:
    if csv:
        start = " start," if old else ""
        return f"node type,{start} first, avg_ms, %, cdf%, mem KB, times called, name"
    start = "\t          [start]" if old else ""
    return (
        f"\t{'[node type]':>{24 if old else 40}}{start}\t  [first]\t [avg ms]\t     [%]\t  [cdf%]"
        "\t  [mem KB]\t[times called]\t[Name]"
    )


def tables(ops, old: bool = False, csv: bool = False) -> str:
    """What the summarizer prints of one graph: tables and the sum of a run."""
    by_time = sorted(ops, key=lambda op: -op[1])
    kinds = "node type, count, avg_ms, avg %, cdf %, mem KB, times called"
    lines = [
        f"{TITLE} Run Order {TITLE}",
        header(old, csv),
        *rows(ops, old, csv),
        "",
        f"{TITLE} Top by Computation Time {TITLE}",
        header(old, csv),
        *rows(by_time[:10], old, csv),
        "",
        f"Number of nodes executed: {len(ops)}",
        f"{TITLE} Summary by node type {TITLE}",
        kinds if csv else "\t[Node type]\t  [count]\t  [avg ms]\t    [avg %]",
        *(f"{kind}, 1, {ms:g}, 10%, 10%, 0, 1" for kind, ms, _ in ops),
        "",
        f"Timings (microseconds): count=50 first=1900 curr=1800 min=1700 max=2000 "
        f"avg={total_us(ops):g} std=12",
        "Memory (bytes): count=0",
        f"{len(ops)} nodes observed",
        "",
    ]
    return "\n".join(lines) + "\n"


INITIALISATION = (("ModifyGraphWithDelegate", 30.0, "ModifyGraphWithDelegate/0"),)


def headed(ops, old: bool = False, csv: bool = False) -> str:
    """With the profile of the initialisation in front, as a CSV file holds it."""
    return (
        f"Profiling Info for Benchmark Initialization:\n{tables(INITIALISATION, old, csv)}\n"
        f"Operator-wise Profiling Info for Regular Benchmark Runs:\n{tables(ops, old, csv)}\n"
    )


def printed(ops, graph: str = "/data/local/tmp/probe_000.tflite", old: bool = False) -> str:
    """What a run prints, log prefixes included."""
    return (
        "INFO: STARTING!\n"
        "INFO: Log parameter values verbosely: [0]\n"
        "INFO: Num threads: [2]\n"
        f"INFO: Graph: [{graph}]\n"
        "INFO: Enable op profiling: [1]\n"
        f"INFO: Loaded model {graph}\n"
        "INFO: count=50 first=9000 curr=1800 min=1700 max=9000 avg=1.99e+03 std=100\n"
        "INFO: Inference timings in us: Init: 400, First inference: 9000, Warmup (avg): 2000, "
        "Inference (avg): 1990\n"
        f"INFO: {headed(ops, old)}"
    )
