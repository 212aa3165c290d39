"""Fetch the fonts that words are printed in: Debian packages, by name, unpacked and not installed.

The pictures come from `training/smol/fetch_parts.py` and `gather.py` there. Nothing of either
is shipped with mmlens; licences stand in README.md. Needs a Debian's `apt-get` and `dpkg`.

    python training/pictos_clip/fetch_fonts.py --work DIR
"""

import argparse
import subprocess
from pathlib import Path

DEBIAN = (
    "fonts-dejavu-core",
    "fonts-liberation",
    "fonts-freefont-ttf",
    "fonts-lato",
    "fonts-crosextra-caladea",
    "fonts-cantarell",
    "fonts-inconsolata",
    "fonts-dosis",
    "fonts-dancingscript",
    "fonts-lobster",
    "fonts-bebas-neue",
    "fonts-comic-neue",  # held out, as are the next three
    "fonts-courier-prime",
    "fonts-ebgaramond",
    "fonts-league-spartan",
)


def main(work: Path) -> None:
    got = work / "packages"
    got.mkdir(parents=True, exist_ok=True)
    for name in DEBIAN:
        if not list(got.glob(f"{name}_*.deb")):
            subprocess.run(["apt-get", "download", name], cwd=got, check=True)
        to = work / "unpacked" / name
        if not to.exists():
            subprocess.run(
                ["dpkg", "-x", str(next(got.glob(f"{name}_*.deb"))), str(to)], check=True
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/pictos-clip"))
    main(parser.parse_args().work)
