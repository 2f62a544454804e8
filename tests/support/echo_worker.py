"""A worker of `benchmarks.parts.workers` without any library: python -m tests.support.echo_worker."""

import os
import sys
import time

from benchmarks.parts.workers import serve


def busy(seconds):
    begin = time.process_time()
    while time.process_time() - begin < seconds:
        pass
    print("noise on stdout")


def fail(text):
    raise ValueError(text)


def die():
    print("last words", file=sys.stderr, flush=True)
    os._exit(3)


if __name__ == "__main__":
    threads = os.environ["OMP_NUM_THREADS"]
    serve({"echo": lambda x: [x, threads], "busy": busy, "fail": fail, "die": die})
