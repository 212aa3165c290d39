"""Write mmlens/data/scowl-60.txt.gz from two plain word lists, one word per line.

The lists are `american-english` and `british-english` of Debian's packages `wamerican` and
`wbritish` (2020.12.07), which are SCOWL size 60 in each spelling:

    python scripts/make_dictionary.py american-english british-english
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

TARGET = Path(__file__).parent.parent / "mmlens" / "data" / "scowl-60.txt.gz"


def main(paths: list[str]) -> None:
    found = {word for path in paths for word in Path(path).read_text(encoding="utf-8").split()}
    words = sorted(word for word in found if len(word) >= 3 and word.isalpha())
    text = "\n".join(words) + "\n"
    TARGET.write_bytes(gzip.compress(text.encode("utf-8"), 9, mtime=0))
    print(f"{TARGET}: {len(words)} words")


if __name__ == "__main__":
    main(sys.argv[1:])
