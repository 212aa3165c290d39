"""Files inside a Qt resource file (.rcc), which is how GCompris carries its pictures.

A tree of fixed-size nodes (name offset, flags, then children or a data offset), a table of names in
UTF-16, and the data, each with its length: https://doc.qt.io/qt-6/rcc.html, format versions 1 to 3.
"""

import struct
import zlib
from pathlib import Path

COMPRESSED, FOLDER = 1, 2


def read(file: Path) -> dict[str, bytes]:
    """Path -> bytes of everything in it."""
    raw = file.read_bytes()
    version, tree, data, names = struct.unpack(">4I", raw[4:20])
    node, out = (22 if version > 1 else 14), {}

    def walk(number: int, above: str) -> None:
        at = tree + node * number
        name, flags = struct.unpack(">IH", raw[at : at + 6])
        length = struct.unpack(">H", raw[names + name : names + name + 2])[0]
        text = raw[names + name + 6 : names + name + 6 + 2 * length].decode("utf-16-be")
        path = f"{above}/{text}" if number else ""
        if flags & FOLDER:
            many, first = struct.unpack(">2I", raw[at + 6 : at + 14])
            for child in range(first, first + many):
                walk(child, path)
            return
        start = data + struct.unpack(">I", raw[at + 10 : at + 14])[0]
        size = struct.unpack(">I", raw[start : start + 4])[0]
        content = raw[start + 4 : start + 4 + size]
        out[path] = zlib.decompress(content[4:]) if flags & COMPRESSED else content

    walk(0, "")
    return out
