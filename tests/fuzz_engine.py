"""Mutates inputs, and watches a parser while it reads one: its errors, time, memory and writes."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from neas_tf.common.errors import NeasError

# A parser may take so long for one input; machines are shared, so it is far above what they need.
HANG_SECONDS = 2.0
LONGEST = 1 << 16  # bytes of a mutated input
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


@dataclasses.dataclass
class Tally:
    """What came of the inputs of one parser.

    Attributes:
      tried, accepted, refused, failed: counts; refused are those that ended with a `NeasError`,
        failed those with a fault.
      slowest: seconds of the slowest input.
      faults: kind of each fault, and the (first, shortened) input that showed it.
    """

    tried: int = 0
    accepted: int = 0
    refused: int = 0
    failed: int = 0
    slowest: float = 0.0
    faults: dict[str, bytes] = dataclasses.field(default_factory=dict)

    def add(self, data: bytes, kind: str, seconds: float) -> None:
        """Counts one input; `kind` is 'accepted', 'refused' or a fault."""
        self.tried += 1
        self.slowest = max(self.slowest, seconds)
        if kind == "accepted":
            self.accepted += 1
        elif kind == "refused":
            self.refused += 1
        else:
            self.failed += 1
            if kind not in self.faults or len(data) < len(self.faults[kind]):
                self.faults[kind] = data


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


def peak_memory() -> int:
    """Bytes, the most that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


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


def mutate(data: bytes, rng: random.Random, target: Target) -> bytes:
    """A few random changes: of bytes, of tokens, or of values where the input is JSON."""
    if rng.random() < 0.35 and (changed := _mutate_json(data, rng)) is not None:
        return changed[:LONGEST]
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        _change(result, rng, target)
    return bytes(result[:LONGEST])


def _change(data: bytearray, rng: random.Random, target: Target) -> None:
    at = rng.randint(0, len(data))
    end = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 32, 128)))
    kind = rng.randrange(7)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = rng.randrange(256)
    elif kind == 2:
        del data[at:end]
    elif kind == 3:
        data[at:at] = data[at:end] * rng.choice((1, 2, 30, 300))
    elif kind == 4:
        other = rng.choice(target.seeds)
        data[at:] = other[rng.randint(0, len(other)) :]
    else:
        tokens = target.tokens if target.tokens and rng.random() < 0.6 else TOKENS
        data[at : end if kind == 5 else at] = rng.choice(tokens)


def _mutate_json(data: bytes, rng: random.Random) -> bytes | None:
    """Replaces, doubles or drops a random value; None where the input is no JSON."""
    lines = data.split(b"\n")
    index = rng.randrange(len(lines)) if len(lines) > 1 and data[:1] == b"{" else -1
    try:
        value = json.loads(lines[index] if index >= 0 else data)
    except (ValueError, RecursionError):
        return None
    places = list(_places(value))
    if not places:
        return None
    node, key = rng.choice(places)
    action = rng.randrange(5)
    if action == 0:
        del node[key]
    elif action == 1 and isinstance(node, list):
        node[key:key] = [node[key]] * rng.choice((1, 2, 50))
    elif action == 1:
        node[rng.choice(("x_a", "paths", "a", "\ud800", str(key) + "s"))] = node[key]
    elif action == 2:
        node[key] = [node[key]]
    else:
        node[key] = rng.choice(_VALUES)
    changed = json.dumps(value).encode()
    if index < 0:
        return changed
    lines[index] = changed
    return b"\n".join(lines)


def _places(value: object) -> Iterator[tuple[object, object]]:
    items = (
        value.items() if isinstance(value, dict) else enumerate(value)
        if isinstance(value, list) else ()
    )  # fmt: skip
    for key, child in items:
        yield value, key
        yield from _places(child)


def fuzz(
    target: Target,
    rng: random.Random,
    inputs: int,
    seconds: float = float("inf"),
    keep: Callable[[bytes], None] = lambda data: None,
) -> Tally:
    """Reads mutated inputs until there were so many, or the time is over.

    Args:
      target: the parser.
      rng: draws everything.
      inputs: how many at most.
      seconds: how long at most.
      keep: called with each input before it is read, so that it survives the process.
    """
    tally, pool, end = Tally(), list(target.seeds), time.monotonic() + seconds
    while tally.tried < inputs and time.monotonic() < end:
        data = mutate(rng.choice(pool), rng, target)
        keep(data)
        kind, took = observe(target, data)
        tally.add(data, kind, took)
        # Some of what was accepted is changed further, which leads deeper than one step does.
        if kind == "accepted" and len(data) < 1 << 13 and rng.random() < 0.05:
            if len(pool) < 400:
                pool.append(data)
            else:
                pool[rng.randrange(len(target.seeds), len(pool))] = data
    return tally
