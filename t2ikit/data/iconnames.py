"""An icon's name as words: captions ("name" and "tags"), skin tones set apart, and the emoji that the icon shows."""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from t2ikit.data.iconsets import IconSet
from t2ikit.data.npm import read_members
from t2ikit.errors import UserError

STYLES = {"fluent-emoji-flat": "fluent flat", "fluent-emoji": "fluent", "flat-color-icons": "flat color"}
TONE_CODES = {"1f3fb": "light", "1f3fc": "medium-light", "1f3fd": "medium", "1f3fe": "medium-dark", "1f3ff": "dark"}
_TONE = r"(?:medium-light|medium-dark|light|medium|dark)"
_NAMED_TONE = re.compile(rf"(?<![^-])({_TONE})-skin-tone(?![^-])")
_LAST_TONES = re.compile(rf"(?:-{_TONE})+$")
_SIZE = re.compile(r"(?:-\d+)+$")
MAX_TAGS = 10
BARE = frozenset("a an the no two three people men women children".split())  # words that take no article


@dataclass(frozen=True)
class Emoji:
    """What emojibase says of an emoji: code points without variation selectors, label, tags, group ("food & drink")."""

    code: str
    label: str
    tags: tuple[str, ...]
    group: str


@dataclass(frozen=True)
class Named:
    """One icon's words: `subject` without skin tones, `tones` in order, `style` of its set, `emoji` if it shows one."""

    subject: str
    tones: tuple[str, ...]
    style: str
    emoji: Emoji | None
    category: str

    @property
    def name_caption(self) -> str:
        """Style and subject: "a twemoji style icon of a red apple"; skin tones come last."""
        tones = " and ".join(self.tones)
        tail = f", {tones} skin tone{'s' if len(self.tones) > 1 else ''}" if tones else ""
        return f"{_a(self.style)} style icon of {article(self.subject)}{tail}"

    @property
    def tag_caption(self) -> str:
        """The name caption, then emojibase's label and tags if they say something new, then the group or category."""
        said, tags = set(words(self.name_caption.replace(",", "")).lower().split()), []
        if self.emoji:
            label = re.split(": .*skin tone", self.emoji.label)[0]
            tags = [
                tag
                for tag in (label.replace("flag: ", ""), *self.emoji.tags)
                if not set(words(tag).lower().split()) <= said
            ]
        group = (self.emoji.group if self.emoji else "") or re.sub("(?<=[a-z])(?=[A-Z])", " ", self.category)
        return "; ".join(
            part for part in (self.name_caption, ", ".join(tags[:MAX_TAGS]), group.lower().replace("&", "and")) if part
        )


class EmojiTable:
    """emojibase by code points and by name: its own labels, and the names in sets that state their code points."""

    def __init__(self, entries: list[dict[str, object]], groups: dict[str, str]) -> None:
        self.by_code: dict[str, Emoji] = {}
        self.by_name: dict[str, str] = {}
        for entry in entries:
            group = groups.get(str(entry.get("group")), "").replace("-", " & ")
            tags = tuple(map(str, entry.get("tags") or ()))  # type: ignore[call-overload]
            for variant in (entry, *entry.get("skins", ())):  # type: ignore[misc]
                emoji = Emoji(plain_code(variant["hexcode"]), str(variant["label"]), tags, group)
                self.by_code[emoji.code] = emoji
                if group:  # without one it is a part of an emoji, as a regional indicator
                    self.by_name.setdefault(slug(emoji.label), emoji.code)

    @classmethod
    def read(cls, tarball: Path) -> EmojiTable:
        parts = dict(read_members(tarball, ["en/data.json", "meta/groups.json"]))
        try:
            return cls(json.loads(parts["en/data.json"]), json.loads(parts["meta/groups.json"])["groups"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{tarball.name} is no emojibase-data package that we can read ({error!r}): use another version."
            ) from error

    def learn(self, icons: IconSet) -> None:
        """Take over the names under which `icons` draws its emoji, for sets that have only names."""
        for name, codes in icons.codes.items():
            for key in (name, *icons.aliases.get(name, ())):
                self.by_name.setdefault(flag_name(key), plain_code(codes[0]))

    def codes_of(self, icons: IconSet, name: str) -> list[str]:
        """Code point sequences of the icon `name`; for sets of country flags the name is the country's code."""
        if icons.codes:
            return [plain_code(code) for code in icons.codes.get(name, ())]
        if icons.category.startswith("Flags"):
            country = without_variant(icons, name)
            letters = "-".join(f"{0x1F1E6 + ord(letter) - ord('a'):x}" for letter in country)
            return [letters] if re.fullmatch("[a-z]{2}", country) and letters in self.by_code else []
        names = [flag_name(key) for key in (name, *icons.aliases.get(name, ()))]
        return list(dict.fromkeys(self.by_name[key] for key in names if key in self.by_name))

    def describe(self, icons: IconSet, name: str) -> Named:
        """The words for the icon `name` of `icons`."""
        codes = self.codes_of(icons, name)
        emoji = next((self.by_code[code] for code in codes if code in self.by_code), None)
        toned = any(part in TONE_CODES for code in codes for part in code.split("-"))
        bare, tones = split_tones(flag_name(without_variant(icons, name)), toned)
        subject = words(bare)
        if emoji and emoji.label.startswith("flag: "):
            subject = emoji.label.replace("flag: ", "flag of ")
        elif icons.category.startswith("Flags"):
            subject = f"flag of {subject}"
        return Named(subject, tuple(tones), style_of(icons, name), emoji, icons.categories.get(name, ""))


def split_tones(name: str, toned: bool) -> tuple[str, list[str]]:
    """The name without its skin tones, and the tones; `toned`: bare words at the end ("judge-dark") are tones too."""
    tones = _NAMED_TONE.findall(name)
    rest = _NAMED_TONE.sub("", name)
    last = _LAST_TONES.search(rest)
    if toned and not tones and last:
        tones, rest = re.findall(_TONE, last.group()), rest[: last.start()]
    return rest, tones


def without_variant(icons: IconSet, name: str) -> str:
    """The name without what only counts drawings: a declared suffix, a size or a running number (never for emoji)."""
    for suffix in filter(None, icons.suffixes):
        name = name.removesuffix(f"-{suffix}")
    return name if icons.category == "Emoji" or icons.codes else _SIZE.sub("", name) or name


def style_of(icons: IconSet, name: str) -> str:
    """The set's style word(s), with the name of the variant where the set declares one: "streamline color flat"."""
    style = STYLES.get(icons.name, words(icons.name))
    ends = [suffix for suffix in icons.suffixes if suffix and name.endswith(f"-{suffix}") and not suffix[0].isdigit()]
    return f"{style} {icons.suffixes[max(ends, key=len)].lower()}" if ends else style


def words(name: str) -> str:
    """`red-apple` as "red apple": hyphens, underscores and control characters become spaces; all else stays."""
    return " ".join(re.sub(r"[-_\s\x00-\x1f\x7f]+", " ", name).split())


def article(phrase: str) -> str:
    """`phrase` with "a" or "an" if it reads as one thing: not before plurals, numbers and determiners."""
    head = re.split(" (?:with|of|in|on|at|for) ", phrase.lower())[0].split() or [""]
    plural = head[-1].endswith("s") and not head[-1].endswith(("ss", "us", "is"))
    if plural or not head[0][:1].isalpha() or head[0] in BARE:
        return phrase
    return _a(phrase)


def _a(phrase: str) -> str:
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def slug(label: str) -> str:
    """emojibase's label as Iconify names it: "flag: Côte d’Ivoire" as flag-cote-divoire."""
    ascii_text = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"['’.]", "", ascii_text)).strip("-")


def flag_name(name: str) -> str:
    """One way to write a flag: flag-for-flag-belize and flag-for-belize as flag-belize."""
    return re.sub(r"^flag-for-(flag-)?", "flag-", name)


def plain_code(code: object) -> str:
    """Code points in lower case joined by hyphens, without variation selectors."""
    return "-".join(part for part in str(code).lower().replace(" ", "-").split("-") if part != "fe0f")


def without_tones(code: str) -> str:
    """Code points without those of skin tones."""
    return "-".join(part for part in code.split("-") if part not in TONE_CODES)
