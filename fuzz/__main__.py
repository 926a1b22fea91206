"""Fuzz the parsers under atheris. Ten minutes, starting from the corpus.

    pip install atheris    # not a dependency of mutualign; it supports CPython up to the version it was built for
    mkdir -p /tmp/found && python -m fuzz /tmp/found tests/data/fuzz_corpus -max_total_time=600 -timeout=10

New cases go to the first folder; libFuzzer stops at the first finding and writes it to a file `crash-...`. To keep the
corpus small: `python -m fuzz -merge=1 tests/data/fuzz_corpus /tmp/found`.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["mutualign", "tomllib", "tarfile", "gzip", "PIL", "json", "csv"]):
    from fuzz.parsers import feed


def main() -> None:
    warnings.simplefilter("ignore")  # Pillow's, of damaged metadata
    with tempfile.TemporaryDirectory() as folder:
        atheris.Setup(sys.argv, lambda data: feed(data, Path(folder)))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
