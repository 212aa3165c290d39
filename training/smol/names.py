"""From what a picture is called to the noun that it shows.

`nouns.txt` lists the nouns with their other names. An English noun phrase ends in its head, so a
name is read from its end: "a red sports car" is a car, "hot dog" is a food and no dog (`NEVER`).
"""

import re
from pathlib import Path

NEVER = (  # phrases whose last word is not what they show
    "hot dog", "corn dog", "crystal ball", "disco ball", "snow globe", "butterfly net", "house fly",
    "playing card black", "jigsaw", "eye protection", "foot prints", "lucky clover",
    "bowl with spoon", "tuna can", "love hotel", "love letter", "seven segment", "chess", "bow tie",
    "white flag", "man in tuxedo", "zodiac", "fish cake", "moon cake", "rice cake", "rice cracker",
    "rainbow flag", "no smoking", "no pedestrians", "pot of gold", "bow and arrow",
    "heart decoration", "pine decoration", "first quarter", "last quarter", "man dancing",
    "woman dancing", "couple",
    "sports medal button", "crossed flags", "heart exclamation", "face with", "guinea pig",
    "dog breed", "ladder truck", "bookmark", "star of david", "star trek", "star and crescent",
    "sea horse", "seahorse", "sun behind", "sun glasses icon", "shooting star", "cat with",
    "sign language", "bell with slash", "woman and", "man and", "grocery bag", "bus stop",
    "telephone number", "ice", "snow man", "snowman", "scarecrow", "gingerbread", "ring binder",
    "key ring", "wedding ring", "boxing", "fishing", "horse racing", "door bell", "car wash",
)  # fmt: skip
CUT = re.compile(
    r"\b(with|of|on|in|from|for|and|that|which|is|are|wearing|called|holding|sitting|flying|used|"
    r"to|over|under|behind|made|at|by|has|found|has|its|tears)\b"
)


def nouns(file: Path = Path(__file__).parent / "nouns.txt") -> dict[str, list[str]]:
    """Noun -> all names for it, itself first."""
    out = {}
    for line in file.read_text().splitlines():
        if line and not line.startswith("#"):
            noun, _, others = line.partition(":")
            out[noun] = [noun, *(name.strip() for name in others.split(",") if name.strip())]
    return out


def shown(name: str, of: dict[str, list[str]]) -> str | None:
    """The noun that a picture of this name shows, None where that can't be said."""
    words = " ".join(re.findall(r"[a-z0-9]+", name.split(". ")[0].lower().replace("’s", "s")))
    if not words or any(re.search(rf"\b{never}\b", words) for never in NEVER):
        return None
    by_name = {alias: noun for noun, aliases in of.items() for alias in aliases}
    if words in by_name:
        return by_name[words]
    kept = re.sub(r"^(a|an|the|some|several|two|three|pair of|piece of|slice of) ", "", words)
    for whole in (kept, CUT.split(kept)[0].strip()):
        pieces = [w for w in whole.split() if not w.isdigit()]
        for start in range(len(pieces)):
            tail = " ".join(pieces[start:])
            if tail in by_name:
                return by_name[tail]
            if tail.endswith("s") and tail[:-1] in by_name:
                return by_name[tail[:-1]]
    return None
