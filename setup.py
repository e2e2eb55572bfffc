"""Installs t2t_vqem with its gin files and a console command for each of bin/'s."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
COMMANDS = (
    "trainer",
    "datagen",
    "decoder",
    "evaluator",
    "distiller",
    "encoder",
    "averager",
    "exporter",
    "ngrams",
    "codebook",
    "codec",
)


def requirements() -> list[str]:
    """The pins of requirements.txt, loosened so that the package can share an environment."""
    pins = re.findall(r"^([\w-]+)==(\d+\.\d+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    return [
        f"{name}=={minor}.*" if name.startswith("tensorflow") else f"{name}>={minor}" for name, minor in pins
    ]


setup(
    name="t2t-vqem",
    version=re.search(r'__version__ = "(.*)"', (ROOT / "t2t_vqem" / "__init__.py").read_text())[1],
    description="Discrete latent variables by expectation maximisation, in the manner of Tensor2Tensor",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    install_requires=requirements(),
    extras_require={
        "ctranslate2": ["ctranslate2>=4.8,<5"],  # for bin/exporter --format=ctranslate2
        "codec": ["constriction>=0.5,<0.6"],  # for bin/codec
    },
    # A checkout's gin/ must not be installed as a top-level `gin`: it goes inside the package.
    packages=[*find_packages(include=["t2t_vqem", "t2t_vqem.*"]), "t2t_vqem.gin_files"],
    package_dir={"t2t_vqem.gin_files": "gin"},
    package_data={"t2t_vqem.gin_files": ["*.gin"]},
    entry_points={
        "console_scripts": [f"t2t-vqem-{command}=t2t_vqem.cli.main:command" for command in COMMANDS]
    },
)
