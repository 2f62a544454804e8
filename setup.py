"""The packages of the wheel; everything else about it is in pyproject.toml."""

from setuptools import find_packages, setup

# configs/ lies beside the package in a checkout and in it where it is installed.
setup(
    packages=[*find_packages(include=["neas_tf", "neas_tf.*"]), "neas_tf.configs"],
    package_dir={"neas_tf.configs": "configs"},
)
