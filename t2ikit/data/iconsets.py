"""Which icon sets make the pictograms world, pinned, and how to read one: icons, names, licence, emoji codes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2ikit.data.npm import Package, read_members
from t2ikit.data.render import Icon
from t2ikit.errors import UserError

# Six colour sets that are not collections of logos: 17,563 icons. A pin is (version, SHA-256 of the tarball).
_PINS = {
    "noto": ("1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"),
    "twemoji": ("1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7"),
    "openmoji": ("1.2.29", "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5"),
    "fluent-emoji-flat": ("1.2.6", "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175"),
    "emojione": ("1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"),
    "flat-color-icons": ("1.2.3", "d8878a9b0f02d749bc8671eb7d47882eb711185cbcefbb365cbfb488773c4786"),
}
DEFAULT = {name: Package(f"@iconify-json/{name}", *pin) for name, pin in _PINS.items()}
WHOLE = Package("@iconify/json", "2.2.535", "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91")
EMOJIBASE = Package("emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a")
# The colour sets of WHOLE, without its categories Logos and Programming (file types and products: logos too).
WHOLE_SETS = tuple(
    """noto twemoji openmoji fluent-emoji-flat emojione flat-color-icons fluent-emoji noto-v1 emojione-v1 fxemoji
    streamline-emojis icon-park fluent-color glyphs-poly marketeq meteocons flat-ui circle-flags flag flagpack cif
    streamline-color streamline-flex-color streamline-sharp-color streamline-plump-color streamline-ultimate-color
    streamline-freehand-color streamline-cyber-color streamline-kameleon-color streamline-stickies-color""".split()
)
NAME_LIMIT = 10_000  # characters of an icon's name


@dataclass(frozen=True)
class IconSet:
    """One icon set in memory. `codes`, `aliases` and `categories` map an icon's name to what the set says of it."""

    name: str
    title: str
    author: str
    licence: str
    licence_url: str
    category: str
    suffixes: dict[str, str]
    icons: list[Icon]
    codes: dict[str, list[str]] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    categories: dict[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """All that captions need, without the drawings: JSON-able, inverse of `IconSet(icons=[], **facts)`."""
        return {key: value for key, value in self.__dict__.items() if key != "icons"}


def read_sets(names: Iterable[str], tarball: Path) -> Iterator[IconSet]:
    """The icon sets `names` from a package of one set (icons.json, info.json, …) or of all of them (json/NAME.json)."""
    pending = list(names)
    if tarball.name == WHOLE.filename:
        files = {f"json/{name}.json": name for name in pending}
        for file, raw in read_members(tarball, files):
            pending.remove(files[file])
            yield _load(files[file], tarball, {"icons.json": raw})
    else:
        parts = dict(read_members(tarball, ["icons.json", "info.json", "metadata.json", "chars.json"]))
        for name in [name for name in pending if "icons.json" in parts]:
            pending.remove(name)
            yield _load(name, tarball, parts)
    if pending:
        raise UserError(f"{tarball.name} has no icon set {', '.join(pending)}: use another version of the package.")


def _load(name: str, tarball: Path, parts: dict[str, bytes]) -> IconSet:
    try:
        loaded = {file: json.loads(raw) for file, raw in parts.items()}
        icons = loaded["icons.json"]
        info, more = loaded.get("info.json") or icons["info"], loaded.get("metadata.json", icons)
        return parse_set(name, icons, info, more, loaded.get("chars.json", icons.get("chars", {})))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(
            f"{tarball.name} holds no icon set {name!r} that we can read ({type(error).__name__}: {error}): "
            "use another version of the package."
        ) from error


def parse_set(
    name: str, icons: dict[str, Any], info: dict[str, Any], more: dict[str, Any], chars: dict[str, str]
) -> IconSet:
    """An `IconSet` from Iconify's JSON. Hidden icons (withdrawn) are left out, and so are sets without a palette."""
    if not info.get("palette"):
        raise ValueError("the set is not in colour")
    size = [float(icons.get(key, default)) for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))]
    drawn = []
    for key, icon in icons["icons"].items():
        if not icon.get("hidden") and len(key) <= NAME_LIMIT:
            box = [
                float(icon.get(side, default))
                for side, default in zip(("left", "top", "width", "height"), size, strict=True)
            ]
            drawn.append(Icon(key, str(icon["body"]), (box[0], box[1], box[2], box[3])))
    codes: dict[str, list[str]] = {}
    for code, key in sorted(chars.items()):
        codes.setdefault(key, []).append(code)
    aliases: dict[str, list[str]] = {}
    for alias, target in sorted(icons.get("aliases", {}).items()):
        if not {"rotate", "hFlip", "vFlip"} & set(target):  # a mirrored alias is another picture
            aliases.setdefault(target["parent"], []).append(alias)
    return IconSet(
        name=name,
        title=str(info["name"]),
        author=str(info.get("author", {}).get("name", "")),
        licence=str(info["license"].get("spdx") or info["license"]["title"]),
        licence_url=str(info["license"].get("url", "")),
        category=str(info.get("category", "")),
        suffixes={str(k): str(v) for k, v in (more.get("suffixes") or {}).items()},
        icons=drawn,
        codes=codes,
        aliases=aliases,
        categories={
            key: str(label)
            for label, keys in more.get("categories", {}).items()
            for key in keys
            if not label.startswith("Extras")  # a set's remainder says nothing of the picture
        },
    )
