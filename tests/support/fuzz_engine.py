"""Changes valid inputs, and watches a parser while it reads one: its errors, time and writes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

from neas_tf.common.errors import NeasError

# A parser may take so long for one input; machines are shared, so it is far above what they need.
HANG_SECONDS = 2.0
LONGEST = 1 << 16  # bytes of a changed input
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# What no reader of outside data has a reason to do; see Python's table of audit events.
_FORBIDDEN = frozenset(
    [
        "os.system",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.startfile",
        "subprocess.Popen",
        "os.remove",
        "os.rename",
        "os.mkdir",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.chmod",
        "os.chown",
        "os.truncate",
        "shutil.rmtree",
        "shutil.copyfile",
        "shutil.move",
        "tempfile.mkstemp",
        "tempfile.mkdtemp",
        "socket.connect",
        "socket.bind",
        "pickle.find_class",
        "ctypes.dlopen",
    ]
)


class Hang(BaseException):
    """An input took longer than `HANG_SECONDS`; no `except Exception` swallows it."""


@dataclasses.dataclass(frozen=True)
class Target:
    """A parser under test.

    Attributes:
      name: of the parser.
      read: reads one input; returns or raises `NeasError`, nothing else.
      seeds: valid inputs.
      tokens: what makes sense inside an input, beside `TOKENS`.
      share: of the inputs of a long run, relative to the others; slow parsers get less.
    """

    name: str
    read: Callable[[bytes], object]
    seeds: Sequence[bytes]
    tokens: Sequence[bytes] = ()
    share: float = 1.0


class _Watch:
    """One audit hook a process (they cannot be removed); it looks only while an input is read."""

    def __init__(self) -> None:
        self.active = self.installed = False
        self.seen: list[str] = []

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.active:
            return
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            if flags & _WRITING:
                self.seen.append(f"open for writing {arguments[0]!r}")
        elif event in _FORBIDDEN:
            self.seen.append(event)


_WATCH = _Watch()


def _alarm(signum: int, frame: object) -> None:
    raise Hang


def observe(target: Target, data: bytes, seconds: float = HANG_SECONDS) -> tuple[str, float]:
    """('accepted', 'refused' or the fault, seconds) of one input."""
    if not _WATCH.installed:
        sys.addaudithook(_WATCH)
        _WATCH.installed = True
    if hasattr(target.read, "prepare"):
        target.read.prepare(data)
    _WATCH.seen.clear()
    previous = signal.signal(signal.SIGALRM, _alarm)
    start = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    _WATCH.active = True
    try:
        try:
            target.read(data)
            kind = "accepted"
        except NeasError as error:
            kind = "refused" if _sentence(error) else "a NeasError that is no printable sentence"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            _WATCH.active = False
    except Hang:
        kind = f"hang over {seconds:g} s"
    except BaseException as error:
        kind = f"{type(error).__name__} in {_place(error)}"
    signal.signal(signal.SIGALRM, previous)
    if _WATCH.seen:
        kind = f"side effect: {_WATCH.seen[0]}"
    return kind, time.perf_counter() - start


def _sentence(error: NeasError) -> bool:
    """Whether a command can print the message: not endless, and of code points that encode."""
    text = str(error)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return 0 < len(text) <= 4000


def _place(error: BaseException) -> str:
    """Innermost line of the project that an error passed."""
    place, trace = "?", error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        if f"{os.sep}neas_tf{os.sep}" in path:
            place = f"{path.split(f'{os.sep}neas_tf{os.sep}')[-1]}:{trace.tb_frame.f_code.co_name}"
        trace = trace.tb_next
    return place


# Numbers, texts and structures that parsers trip over.
TOKENS: tuple[bytes, ...] = (
    *(b"NaN Infinity -Infinity 1e999 -1e999 1e308 -0 -1 0 1 2 64 65 1e-3 0.1 true false null".split()),
    *(str(2**p + d).encode() for p in (31, 32, 63, 64) for d in (-1, 0)),
    b"9" * 5000, b"0x" + b"f" * 5000, b"1" + b"0" * 400, b"1:" * 300 + b"1",
    b'"\\ud800"', b'"\\u0000"', b"\\UFFFFFFFF", b"\\U00110000", b"\xff", b"\x00", b"\xed\xa0\x80",
    b"\xef\xbb\xbf", b"\xc2\x85", b"\xe2\x80\xa8", b"\r\n", b"\t", b"'", b'"', b"\\",
    b"[" * 3000, b'{"a":' * 1500, b"[[[[", b"]]", b"{}", b"[]", b'""', b",", b":", b"=", b"|", b".",
    b"../../x", b"/etc/passwd", b"~\x00", b"a.json", b"a\x00.json", b"a" * 3000,
    b"&a [x,x]", b"*a", b"<<: *a", b"<<: [*a, *a]", b"- &b [*a, *a]", b"!!timestamp x", b"!!int ''",
    b"!!float ''", b"!!bool x", b"!!binary x", b"!!set {a, b}", b"!!omap [a: 1]", b"!!pairs [a]",
    b"!!python/object/apply:os.system ['touch x']", b"? [a, b]", b"2001-01-01", b"0o7", b"1_0",
    b"---\n", b"%YAML 9.9\n", b"# ", b"> ", b"x_a", b"\xf0\x9f\x98\x80", b"\xd9\xa3",
)  # fmt: skip
_VALUES: tuple[object, ...] = (
    None, True, False, 0, 1, -1, 2, 63, 64, 65, 2**31, 2**63, 2**64, 10**400, -(10**400), 0.5, 1e308,
    float("nan"), float("inf"), "", "a", "skip", "k3e4", "k99e99", "\ud800", "\0", "../x", "9" * 5000,
    [], {}, [[]], [None], [{}], {"a": {}}, {"": 1}, [1, 2, 3], ["k3e4"], [["k3e4"]], "x" * 5000,
)  # fmt: skip


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=6) | st.sampled_from(("format", "paths", "space", "entries", "mean")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


def changed(target: Target) -> st.SearchStrategy[bytes]:
    """Seeds of a parser with a few changes: of bytes and tokens, or of values in JSON."""
    json_seeds = [seed for seed in target.seeds if _has_places(seed)]
    plain = _changed_bytes(target)
    return plain | _changed_values(json_seeds) if json_seeds else plain


@st.composite
def _changed_bytes(draw: st.DrawFn, target: Target) -> bytes:
    data = bytearray(draw(st.sampled_from(target.seeds)))
    tokens = st.sampled_from((*target.tokens, *TOKENS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.sampled_from((0, 1, 2, 8, 128))))
        kind = draw(st.sampled_from(("cut", "bytes", "token", "repeat", "splice")))
        if kind == "cut":
            del data[at:end]
        elif kind == "bytes":
            data[at:end] = draw(st.binary(min_size=end - at, max_size=end - at))
        elif kind == "token":
            data[at:end] = draw(tokens)
        elif kind == "repeat":
            data[at:at] = data[at:end] * draw(st.sampled_from((1, 2, 30, 300)))
        else:
            other = draw(st.sampled_from(target.seeds))
            data[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data[:LONGEST])


@st.composite
def _changed_values(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """JSON, or a line of JSON lines, with a value dropped, doubled, nested or replaced."""
    lines = draw(st.sampled_from(seeds)).splitlines()
    number = draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[number])
    node, key = draw(st.sampled_from(list(_places(value))))
    kind = draw(st.sampled_from(("drop", "double", "nest", "known", "any")))
    if kind == "drop":
        del node[key]
    elif kind == "double" and isinstance(node, list):
        node[key:key] = [node[key]] * draw(st.sampled_from((1, 2, 50)))
    elif kind == "double":
        node[draw(st.sampled_from(("x_a", "paths", "a", "\ud800", f"{key}s")))] = node[key]
    elif kind == "nest":
        node[key] = [node[key]]
    else:
        node[key] = draw(st.sampled_from(_VALUES) if kind == "known" else JSON)
    lines[number] = json.dumps(value).encode()
    return b"\n".join(lines)[:LONGEST]


def _has_places(seed: bytes) -> bool:
    try:
        return all(list(_places(json.loads(line))) for line in seed.splitlines())
    except ValueError:
        return False


def _places(value: object) -> Iterator[tuple[Any, Any]]:
    """Each value inside a value, as what holds it and its key there."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in pairs:
        yield value, key
        if isinstance(child, (dict, list)):
            yield from _places(child)
