"""Office-31: 4,110 photos of 31 classes of office things, from a shop, a webcam and a camera (Saenko et al., 2010)."""

from __future__ import annotations

from functools import partial
from itertools import permutations
from pathlib import Path

from mutualign.data.datasets.registry import register_domains
from mutualign.data.folders.domains import DomainPair, find_pair
from mutualign.errors import MutualignError

DOMAINS = ("amazon", "webcam", "dslr")
FOLDERS = ("office31", "office-31", "Office31", "domain_adaptation_images")


def office31(pair: str, data: Path) -> DomainPair:
    """Where the photos of a pair of domains are. Raises MutualignError if they are not in the data folder."""
    root = next((data / name for name in FOLDERS if (data / name).is_dir()), None)
    if root is None:
        raise MutualignError(
            f"office31:{pair}: no photos of Office-31 in the data folder\n"
            f"  missing  {data}/office31/{{amazon,webcam,dslr}}/CLASS/*.jpg\n"
            "  hint:    they are for research use, and must be asked for or downloaded by you; then name the folder\n"
            "           with --data"
        )
    return find_pair(root, pair)


for _source, _target in permutations(DOMAINS, 2):
    _pair = f"{_source}-{_target}"
    register_domains(
        f"office31:{_pair}", f"Office-31 photos, {_source} -> {_target}; needs your own copy", partial(office31, _pair)
    )
