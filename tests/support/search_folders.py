"""A small search in a folder, crashes included, for the tests of what a folder holds."""

import dataclasses
from pathlib import Path

from toy_search import shrink, toy_evaluate, toy_score, toy_search, toy_space

from neas_tf.search.candidate import Score
from neas_tf.search.evolution import SearchSettings
from neas_tf.search.fitness import NUMBERS
from neas_tf.space.architecture import Architecture
from neas_tf.space.shrunk_space import ShrunkSpace

SETTINGS = SearchSettings(population=5, parents=3, generations=3, seed=1)
SHRUNK = shrink(ShrunkSpace.full(toy_space(), 2), 5)
BUDGET = 450
OUTSIDE = Architecture.from_key("s1:k3e4|k3e4.k3e4.k3e4.k3e4.k3e4|k3e4.k3e4.k3e4.k3e4.k3e4")
FILES = ("history.jsonl", "state.json", "best.json")


class Crash(Exception):
    pass


def contents(folder):
    return {f.name: f.read_bytes() for f in Path(folder).iterdir()}


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def counting(calls, crash_after=None):
    def evaluate(architectures):
        for architecture in architectures:
            if len(calls) == crash_after:
                raise Crash
            calls.append(architecture)
            yield toy_score(architecture)

    return evaluate


def search(folder, evaluate=toy_evaluate, settings=SETTINGS, shrunk=SHRUNK, budget=BUDGET):
    return toy_search(folder, settings, shrunk, budget, evaluate)


def scored(architecture):
    """A likelihood that is no function of the accuracy."""
    score, more = toy_score(architecture), sum(map(ord, architecture.key)) % 101 / 100
    numbers = {name: -more - i for i, name in enumerate(NUMBERS)}
    return Score(score.accuracy, score.path_accuracies, numbers=numbers)


def with_fitness(fitness, **more):
    return dataclasses.replace(SETTINGS, fitness=fitness, **more)
