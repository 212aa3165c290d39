"""Tables that are read off the code: directives `sites`, `acts`, `families`, `encoders`, `native`,
`errors`, `sentences`, `methods`, `verbs`, `commands`, `versions`, `refused` and `citation`.

None of their rows is written by hand, so a new site, family, error or method is in the docs when
it is in the code.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib import import_module
from typing import Any

from docutils import nodes
from examples import ERRORS
from results import ROOT, workplace
from snippets import blocks, compiled
from sphinx.util.docutils import SphinxDirective

from mmlens.values.lazy import public_names


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def code(text: object) -> str:
    """A code span that may stand in a table."""
    return f"`{text}`".replace("|", "\\|") if str(text) else ""


def first_line(thing: Any) -> str:
    """The first paragraph of a docstring, as one line."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


# -- sites ----------------------------------------------------------------------------------------


def sites() -> str:
    """Every site: hook name, axes, and the shape that was measured on the bundled model."""
    import torch

    import mmlens as mm
    from mmlens.values.sites import SITES

    model = mm.load("pictos")
    with torch.no_grad():
        _, cache = model.run_with_cache(
            mm.Prompt(ROOT / "scenes/dog-and-bicycle.png", "A picture of")
        )
    rows = []
    for name, site in SITES.items():
        point = site.at(0)
        shape = " x ".join(map(str, cache[point].shape[1:])) if point in cache else ""
        hook = site.point.replace("{layer}", "L")
        rows.append((code(name), code(hook), ", ".join(site.axes), shape or "-"))
    return table(("site", "hook name", "axes", "shape on `pictos`"), rows)


def acts() -> str:
    """Site by class of language model: read and edited, read only, or not there."""
    import mmlens as mm
    from mmlens.families.toy import KINDS
    from mmlens.values.errors import CapabilityError
    from mmlens.values.sites import SITES

    models = {kind: mm.load(f"toy-{kind}") for kind in (*KINDS, "cross")}
    rows = []
    for name, site in SITES.items():
        if not site.in_lm:
            continue
        row = [code(name)]
        for model in models.values():
            try:
                model.edit(mm.Edit(name, 0.0))
                row.append("read, edit" if site.at(0) in model.hook_dict else "edit")
            except CapabilityError:
                row.append("read")
            except mm.MMLensError:
                row.append("-")
        rows.append(row)
    return table(("site", *models), rows)


# -- families, methods, commands ------------------------------------------------------------------


def families() -> str:
    """What `mm.load` knows by name."""
    from mmlens import families

    return table(
        ("name", "is"),
        [(code(name), _plain(families.describe(name))) for name in families.models()],
    )


def encoders() -> str:
    """One row per class of encoder, as `scripts/encoders.py` measured it."""
    rows: dict[str, Any] = json.loads((ROOT / "docs/encoders.json").read_text("utf-8"))
    parts = []
    for library in ("hf", "open_clip", "timm"):
        cells = [_encoder(row) for row in rows.values() if row["library"] == library]
        head = (
            "class",
            "grid",
            "before it",
            "layers",
            "own grids",
            "attention",
            "parity",
            "points",
        )
        title = {"hf": "transformers"}.get(library, library)
        parts.append(f"## {title}\n\n{table(head, cells)}")
    return "\n\n".join(parts)


def _encoder(row: dict[str, Any]) -> tuple[str, ...]:
    if "refused" in row:
        return code(row["class"]), "refused", "", "", "", "", "", _plain(row["refused"])
    points = ", ".join(point.replace("hook_", "") for point in row["points"])
    own = "yes" if row["own grids"] else ""
    prefix = ", ".join(row["prefix"])
    return (
        code(row["class"]),
        row["grid"],
        prefix,
        str(row["layers"]),
        own,
        row["attention"],
        f"{row['parity']:.0e}" if row["parity"] else "0",
        points,
    )


def native() -> str:
    """One row per whole vision-language class, as `scripts/native.py` measured it."""
    rows: dict[str, Any] = json.loads((ROOT / "docs/native.json").read_text("utf-8"))
    head = ("class", "such as", "crops", "positions", "merged", "between them", "language model")
    classes = table(head, [_native(row) for row in rows.values()])
    return f"{classes}\n\n## Which verb answers\n\n{_answers(rows)}"


def _answers(rows: dict[str, Any]) -> str:
    """Every public verb by every family: yes, or the number of the reason why it refuses."""
    reasons: dict[str, int] = {}

    def cell(name: str, verb: str) -> str:
        said = rows[name]["refused"].get(verb)
        if said is None:
            return "yes"
        why = _plain(said.split("; it can:")[0].replace(repr(name), "it"))
        return str(reasons.setdefault(why, len(reasons) + 1))

    lines = [
        (code(verb.removeprefix("mmlens.")), *(cell(name, verb) for name in rows))
        for verb in model_verbs()
    ]
    matrix = table(("verb", *(code(name) for name in rows)), lines)
    told = "\n".join(f"{number}. {why}" for why, number in reasons.items())
    return f"{matrix}\n\nA number is the reason of a refusal:\n\n{told}"


def _packages() -> dict[str, Any]:
    """The packages with questions to a model, by name."""
    import mmlens as mm

    doors = ("decoding", "patching", "relevance")
    return {"mmlens": mm, **{f"mmlens.{name}": getattr(mm, name) for name in doors}}


def model_verbs() -> list[str]:
    """The public functions whose first argument is a model."""
    found = []
    for package, here in _packages().items():
        for name in public_names(package):
            thing = getattr(here, name)
            if inspect.isfunction(thing) and name != "from_model":  # which makes one
                first = next(iter(inspect.signature(thing).parameters), "")
                found += [f"{package}.{name}"] if first == "model" else []
    return found


def _native(row: dict[str, Any]) -> tuple[str, ...]:
    marks = [f"{n} {name}" for name, n in row["markers"].items()]
    between = ", ".join([*marks, *(code(word) for word in row["words inside"] if word.strip())])
    told = {
        "across": "reads pictures by cross-attention",
        "PicturesBothWays": "attention both ways in a picture",
        "PrefixBothWays": "attention both ways in the prompt",
        "RowsAndColumns": "rotary rows and columns",
    }
    own = [told[kind] for kind in (row["attention"], row["rotary"]) if kind in told]
    crops = ", ".join(row["crops"])
    positions = str(row["positions"])
    example = code(row["example"])
    return code(row["class"]), example, crops, positions, row["merged"], between, ", ".join(own)


def methods() -> str:
    """The public questions: what each is, and what comes back."""
    rows = []
    for package, here in _packages().items():
        for name, (home, _) in public_names(package).items():
            if home.startswith("mmlens.methods."):
                told, thing = first_line(import_module(home)), getattr(here, name)
                rows.append((f"{{py:func}}`{package}.{name}`", _plain(told), returns(thing)))
    return table(("call", "asks", "gives"), rows)


def verbs() -> str:
    """Which verb each kind of model takes, from what the verb needs and the model can."""
    import mmlens as mm

    bridge = mm.load("toy-gpt2")
    models = {
        "bridge": bridge,
        "tiles": mm.load("toy-tiled"),
        "cross-attention": mm.load("toy-cross"),
        "language model": mm.HookedVLM(None, None, bridge.lm, name="gpt2"),
        "ViT with classes": mm.from_parts(vision=_vit()),
        "ResNet with classes": mm.from_parts(vision=_resnet()),
        "dual encoder": mm.from_model(_clip()),
        "multimodal encoder": mm.from_model(_flava(), multimodal="match"),
        "diffusion model": mm.from_model(_pipeline()),
    }
    rows = []
    for package, here in _packages().items():
        for name in public_names(package):
            verb = getattr(here, name)
            needs = getattr(verb, "needs", None) if inspect.isfunction(verb) else None
            if needs is not None:
                takes = (all(model.can(one) for one in needs) for model in models.values())
                told = ", ".join(map(code, needs)) or "a model"
                cells = ["yes" if taken else "refused" for taken in takes]
                rows.append((f"{{py:func}}`{package}.{name}`", told, *cells))
    return table(("verb", "needs", *models), rows)


def _pipeline() -> Any:
    """The twin of Stable Diffusion that its page makes."""
    made = next(b for b in blocks((ROOT / "docs/diffusion.md").read_text("utf-8"))
                if b.why_not is None)  # fmt: skip
    names: dict[str, Any] = {}
    exec(compiled(made, "diffusion.md"), names)
    return names["pipe"]


def _vit() -> Any:
    from transformers import ViTConfig, ViTForImageClassification

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(**small, intermediate_size=24, image_size=32, patch_size=8, num_labels=3)
    return ViTForImageClassification(config).eval()


def _clip() -> Any:
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"intermediate_size": 24}
    text = {**small, "vocab_size": 32, "max_position_embeddings": 8, "eos_token_id": 1}
    vision = {**small, "image_size": 32, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()


def _flava() -> Any:
    from transformers import FlavaConfig, FlavaForPreTraining

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    small |= {"intermediate_size": 24}
    image, text = {**small, "image_size": 32, "patch_size": 8}, {**small, "vocab_size": 32}
    both = {"hidden_size": 16, "projection_dim": 16, "init_codebook": False}
    parts = {"image_config": image, "text_config": text, "multimodal_config": small}
    return FlavaForPreTraining(FlavaConfig(**parts, **both)).eval()


def _resnet() -> Any:
    import timm

    return timm.create_model("resnet10t", pretrained=False, num_classes=3).eval()


def returns(function: Callable[..., Any]) -> str:
    """The annotation of what comes back."""
    kind = inspect.signature(function).return_annotation
    told = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    return " or ".join(code(part.strip().removeprefix("pd.")) for part in str(told).split("|"))


def commands() -> str:
    """The command line: every command with its options, from the program itself."""
    import typer

    from mmlens.cli.app import app

    return "\n\n".join(_command(typer.main.get_command(app), ("mmlens",)))


def _command(command: Any, path: tuple[str, ...]) -> Iterable[str]:
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from _command(child, (*path, name))
        return
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join([*path, *(p.name.upper() for p in arguments)])
    yield f"## {' '.join(path)}\n\n{_plain(' '.join((command.help or '').split()))}"
    yield f"```text\n{usage} [OPTIONS]\n```"
    rows = []
    for option in command.params:
        if option.param_type_name == "argument" or option.name == "help":
            continue
        default = option.show_default if isinstance(option.show_default, str) else option.default
        shown = "" if default in (None, False, ()) or callable(default) else str(default)
        names = ", ".join(map(code, (*option.opts, *option.secondary_opts)))
        rows.append((names, _plain(option.help or ""), _plain(shown)))
    if rows:
        yield table(("option", "is", "default"), rows)


def _plain(text: str) -> str:
    """Text in a Markdown table: nothing in it is markup but its code spans."""
    parts = re.split(r"(`[^`]*`)", text.replace("|", "\\|"))
    return "".join(p if p.startswith("`") else re.sub(r"([*_<\[])", r"\\\1", p) for p in parts)


# -- errors ---------------------------------------------------------------------------------------


def refused() -> str:
    """Functions of TransformerLens that a model refuses, by what it says instead."""
    from mmlens.model.delegated import REFUSED

    by_reason: dict[str, list[str]] = {}
    for name, why in REFUSED.items():
        by_reason.setdefault(why, []).append(name)
    rows = [(", ".join(map(code, names)), why) for why, names in by_reason.items()]
    return table(("TransformerLens", "here"), rows)


def error_classes() -> list[type]:
    """Every error that mmlens raises on purpose, base first."""
    import mmlens as mm

    defines = re.compile(r"^class \w+\(\w*Error", re.MULTILINE)
    for path in sorted((ROOT / "mmlens").rglob("*.py")):
        if defines.search(path.read_text("utf-8")):
            import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found = [mm.MMLensError]
    for one in found:
        found += [kind for kind in one.__subclasses__() if kind.__module__.startswith("mmlens")]
    public = {kind for kind in found[1:] if kind.__name__[0] != "_"}
    return found[:1] + sorted(public, key=lambda kind: kind.__name__)


def example(kind: type) -> tuple[str, str]:
    """A call that is refused, and the sentence that it gets."""
    import mmlens as mm

    call = ERRORS[kind.__name__]
    names: dict[str, Any] = {"mm": mm}
    try:
        with workplace():
            exec(ERRORS.get("before", ""), names)
            exec(call, names)
    except mm.MMLensError as error:
        if type(error) is kind:
            return call, str(error)
        raise AssertionError(
            f"{call} raises {type(error).__name__}, not {kind.__name__}"
        ) from error
    raise AssertionError(f"{call} raises nothing")


def errors() -> str:
    """A section per error: when, how to catch it, and a sentence that a real call gets."""
    parts = []
    for kind in error_classes()[1:]:
        others = [base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"]
        caught = next(name for name in others if name not in ("Exception", "object"))
        call, sentence = example(kind)
        where = f"mmlens.values.errors.{kind.__name__}"
        if kind.__module__ != "mmlens.values.errors":
            where = f"{kind.__module__}.{kind.__name__}"
        parts.append(
            f"## {kind.__name__}\n\n{first_line(kind)} Also a {code(caught)}; it lives at"
            f" {code(where)}.\n\n```python\n{call.strip()}\n```\n\n> {_plain(sentence)}"
        )
    return "\n\n".join(parts)


def sentences() -> str:
    """Every sentence that the code can say, by error; `...` stands for what was asked."""
    told: dict[str, set[str]] = {}
    for path in sorted((ROOT / "mmlens").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                name = ast.unparse(node.exc.func).split(".")[-1]
                name = "ArgumentError" if name == "error" else name  # the default of `arguments`
                text = _sentence(node.exc.args[0])
                if name.endswith("Error") and len(text.replace("...", "").strip()) > 12:
                    told.setdefault(name, set()).add(text)
    known = {kind.__name__ for kind in error_classes()}
    parts = []
    for name in sorted(known & set(told)):
        items = "".join(f"<li>{escape(text)}</li>" for text in sorted(told[name]))
        count = len(told[name])
        parts.append(f"<details><summary>{name}: {count}</summary><ul>{items}</ul></details>")
    return '<div class="mm-sentences">' + "".join(parts) + "</div>"


def _sentence(node: ast.expr) -> str:
    """A message with `...` in the place of what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return " ".join(node.value.split())
    if isinstance(node, ast.JoinedStr):
        pieces = [p.value if isinstance(p, ast.Constant) else "..." for p in node.values]
        return " ".join("".join(map(str, pieces)).split())
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return f"{_sentence(node.left)} {_sentence(node.right)}".strip()
    return ""


# -- citing ---------------------------------------------------------------------------------------


def citation() -> str:
    """CITATION.cff as BibTeX: mmlens, then what it builds on."""
    import yaml

    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    entries = [_bibtex("mmlens", "software", cff)]
    for work in cff.get("references", ()):
        key = work["authors"][0].get("family-names", "x").lower() + str(work.get("year", ""))
        entries.append(_bibtex(key, "article" if work["type"] == "article" else "software", work))
    return "```bibtex\n" + "\n\n".join(entries) + "\n```"


def _bibtex(key: str, kind: str, work: dict[str, Any]) -> str:
    people = [
        f"{one['family-names']}, {one['given-names']}"
        if "family-names" in one
        else f"{{{one['name']}}}"
        for one in work["authors"]
    ]
    fields = {"title": f"{{{work['title']}}}", "author": " and ".join(people)}
    fields |= {name: str(work[name]) for name in ("year", "version", "url") if name in work}
    lines = [f"  {name:<7} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


# -- the directives -------------------------------------------------------------------------------


def _markdown(make: Callable[[], str]) -> type[SphinxDirective]:
    class Made(SphinxDirective):
        def run(self) -> list[nodes.Node]:
            return self.parse_text_to_nodes(make(), allow_section_headings=True)

    return Made


def versions() -> str:
    """The lowest and the newest versions that the tests have run with."""
    from mmlens.doctor.tested import EXTRAS, TESTED

    extra_of = {name: extra for extra, names in EXTRAS.items() for name in names}
    rows = [
        (name, lowest, newest, code(f"mmlens[{extra_of[name]}]") if name in extra_of else "")
        for name, (lowest, newest) in TESTED.items()
    ]
    return table(("package", "lowest tested", "newest tested", "comes with"), rows)


def _html(make: Callable[[], str]) -> type[SphinxDirective]:
    class Made(SphinxDirective):
        def run(self) -> list[nodes.Node]:
            return [nodes.raw("", make(), format="html")]

    return Made


def setup(app: Any) -> dict[str, bool]:
    """Register the directives."""
    for make in (
        sites,
        acts,
        families,
        encoders,
        native,
        methods,
        verbs,
        commands,
        versions,
        errors,
        refused,
        citation,
    ):
        app.add_directive(make.__name__, _markdown(make))
    app.add_directive("sentences", _html(sentences))
    return {"parallel_read_safe": False, "parallel_write_safe": True}
