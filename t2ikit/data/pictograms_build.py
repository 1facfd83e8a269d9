"""Builds the folder of the world `pictograms` from npm packages: icons of several styles with captions.

Stages: packages → parts (one a set, rendered) → captions, groups, split → shards and table. Every set that is
done is kept, so that a stopped `get` goes on where it stopped; `manifest.json` says complete only when all is written.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from t2ikit.config import digest
from t2ikit.data.dedup import groups, near_duplicates
from t2ikit.data.iconnames import EmojiTable, without_tones
from t2ikit.data.iconsets import DEFAULT, EMOJIBASE, WHOLE, WHOLE_SETS, IconSet, read_sets
from t2ikit.data.npm import Package, get_package
from t2ikit.data.render import BACKGROUND, SIDE, THUMB, Rendered, render_all
from t2ikit.data.shards import Sample, read_index, read_table, write_index, write_shards, write_table
from t2ikit.data.split import components, concept, hold_out, leaks
from t2ikit.data.world import SPLITS
from t2ikit.errors import UserError
from t2ikit.files import file_hash, locked, read_json, write_json
from t2ikit.runs import home

CODE = 1  # raised by hand when pictures, captions or split of the same packages change
SEED = 0  # of the split and of the order within it
MANIFEST, TABLE, PARTS, PACKAGES = "manifest.json", "table.parquet", "parts", "packages"
KEYS = ("recipe", "packages", "sets", "complete")  # of the manifest


def get(
    out: Path | None = None,
    whole: bool = False,
    sets: Mapping[str, Package] | None = None,
    workers: int = 2,
    progress: bool = True,
) -> Path:
    """Build the world in `out` (default $T2IKIT_HOME/data/pictograms) and return it; run again: it goes on.

    `whole`: 30 colour sets of @iconify/json (40,980 pairs, 3 minutes; pictograms-whole) instead of six (17,558 pairs,
    1 minute, on two free cores).
    `sets`: other packages by set name. Needs npm and a network unless the packages are already in `out`/packages.
    """
    chosen = dict(sets or (dict.fromkeys(WHOLE_SETS, WHOLE) if whole else DEFAULT))
    folder = out or home() / "data" / ("pictograms-whole" if whole else "pictograms")
    specs = {name: package.spec for name, package in chosen.items()}
    recipe = {"code": CODE, "seed": SEED, "side": SIDE, "background": BACKGROUND, "sets": specs}
    busy = f"Another process is building {folder}: wait for it, then run the same command again."
    with locked(folder / ".lock", busy):
        manifest = _manifest(folder, recipe)
        if not manifest["complete"]:
            emoji_tarball = get_package(EMOJIBASE, folder / PACKAGES)
            _record(manifest, EMOJIBASE, emoji_tarball)
            for package in dict.fromkeys(chosen.values()):
                pending = [name for name in chosen if chosen[name] == package and not _done(folder, manifest, name)]
                if pending:
                    tarball = get_package(package, folder / PACKAGES)
                    _record(manifest, package, tarball)
                    for icons in read_sets(pending, tarball):
                        manifest["sets"][icons.name] = _render_set(icons, folder, workers, progress)
                        write_json(folder / MANIFEST, manifest)
            _assemble(folder, list(chosen), EmojiTable.read(emoji_tarball), manifest)
    return folder


def _done(folder: Path, manifest: dict[str, Any], name: str) -> bool:
    return name in manifest["sets"] and (folder / PARTS / f"{name}.parquet").exists()


def _manifest(folder: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a build begun here before, or a new one; a UserError if it is another build's."""
    if not (folder / MANIFEST).exists():
        return {"recipe": recipe, "packages": {}, "sets": {}, "complete": False}
    manifest = read_json(folder / MANIFEST, KEYS)
    if manifest["recipe"] != recipe:
        raise UserError(
            f"{folder} holds pictograms of other packages or of another t2ikit: remove it, or choose another --out."
        )
    if not manifest["complete"]:
        return manifest
    wanted = [TABLE, *(entry["url"] for entry in read_index(folder))]
    if lost := [name for name in wanted if not (folder / name).exists()]:
        raise UserError(f"{folder} has lost {lost[0]}: remove the folder and run the same command again.")
    return manifest


def _record(manifest: dict[str, Any], package: Package, tarball: Path) -> None:
    """Note name, version and SHA-256; a UserError if this package had another content when the build was begun."""
    seen = {"version": package.version, "sha256": file_hash(tarball), "file": tarball.name}
    if manifest["packages"].setdefault(package.name, seen) != seen:
        raise UserError(
            f"{tarball} is not the {package.name} that {MANIFEST} records: remove the folder {tarball.parent.parent} "
            "and run the same command again."
        )


def _render_set(icons: IconSet, folder: Path, workers: int, progress: bool) -> dict[str, Any]:
    """Render one set into parts/NAME.parquet; its counts and licence for the manifest."""
    options = {"desc": icons.name, "unit": "icon", "mininterval": 1.0, "disable": not progress}
    drawn = list(tqdm(render_all(icons.icons, workers), total=len(icons.icons), **options))
    done = [(icon.name, r) for icon, r in zip(icons.icons, drawn, strict=True) if isinstance(r, Rendered)]
    table = pa.table(
        {
            "icon": [name for name, _ in done],
            "webp": pa.array([r.webp for _, r in done], pa.binary()),
            "phash": [f"{r.phash:016x}" for _, r in done],
            "thumb": pa.array([r.thumb for _, r in done], pa.binary()),
        }
    ).replace_schema_metadata({"set": json.dumps(icons.facts())})
    write_table(folder / PARTS / f"{icons.name}.parquet", table)
    blank = drawn.count("blank")
    counts = {"icons": len(drawn), "kept": len(done), "blank": blank, "invalid": len(drawn) - len(done) - blank}
    return counts | {k: getattr(icons, k) for k in ("title", "author", "licence", "licence_url")}


def _assemble(folder: Path, names: list[str], emoji: EmojiTable, manifest: dict[str, Any]) -> None:
    """Captions, groups, split, shards, table; the manifest says complete only when all are written."""
    parts = [read_table(folder / PARTS / f"{name}.parquet") for name in names]
    sets = [IconSet(icons=[], **json.loads(part.schema.metadata[b"set"])) for part in parts]
    for icons in sets:
        emoji.learn(icons)
    rows: list[dict[str, Any]] = []
    keys: list[list[str]] = []
    for icons, part in zip(sets, parts, strict=True):
        for row in part.to_pylist():
            named = emoji.describe(icons, row["icon"])
            if not named.subject:  # a name of hyphens only says nothing
                manifest["sets"][icons.name]["unnamed"] = manifest["sets"][icons.name].get("unnamed", 0) + 1
                continue
            aliases = [emoji.describe(icons, alias).subject for alias in icons.aliases.get(row["icon"], ())]
            concepts = [concept(subject) for subject in (named.subject, *filter(None, aliases))]
            codes = [without_tones(code) for code in emoji.codes_of(icons, row["icon"])]
            keys.append([f"concept {c}" for c in concepts] + [f"emoji {c}" for c in codes])
            rows.append({
                "set": icons.name, "icon": row["icon"],
                "licence": icons.licence, "licence_url": icons.licence_url, "author": icons.author,
                "background": BACKGROUND, "name": named.name_caption, "tags": named.tag_caption,
                "subject": named.subject, "concept": concepts[0], "emoji": codes[0] if codes else None,
                "sha256": hashlib.sha256(row["webp"]).hexdigest(), **{k: row[k] for k in ("webp", "phash", "thumb")},
            })  # fmt: skip
    if len(rows) < 2:
        raise UserError(f"{', '.join(names)} gave {len(rows)} pictures that show something: choose other sets.")
    thumbs = np.frombuffer(b"".join(row["thumb"] for row in rows), np.uint8).reshape(-1, THUMB, THUMB, 3)
    pairs = near_duplicates(np.array([int(row["phash"], 16) for row in rows], np.uint64), thumbs)
    clusters, labels = groups(len(rows), pairs), components(keys, pairs)
    held = hold_out(labels, SEED)
    order = np.random.default_rng(SEED).permutation(len(rows))
    order = np.concatenate([order[~held[order]], order[held[order]]])
    for number, row in enumerate(rows):
        row.update(
            cluster=int(clusters[number]), component=int(labels[number]), split="val" if held[number] else "train"
        )
    _write(folder, [rows[number] for number in order], manifest)


def _write(folder: Path, rows: list[dict[str, Any]], manifest: dict[str, Any]) -> None:
    entries: list[dict[str, Any]] = []
    for split in SPLITS:
        chosen = ((n, row) for n, row in enumerate(rows) if row["split"] == split)
        samples = (Sample(f"{n:08d}", row["webp"], row["name"], _facts(row)) for n, row in chosen)
        entries += write_shards(folder, samples, stem=split)
    places = [(entry["url"], n) for entry in entries for n in range(entry["nsamples"])]
    for number, (row, (shard, _)) in enumerate(zip(rows, places, strict=True)):
        row.update(key=f"{number:08d}", shard=shard)
        del row["webp"]
    table = pa.Table.from_pylist(rows)
    write_index(folder, entries)
    write_table(folder / TABLE, table)
    manifest["counts"] = {split: table["split"].to_pylist().count(split) for split in SPLITS}
    manifest["clusters"], manifest["components"] = (
        len(set(table[name].to_pylist())) for name in ("cluster", "component")
    )
    manifest["leaks"] = leaks(table)
    manifest["fingerprint"] = fingerprint(table)
    manifest["complete"] = True
    write_json(folder / MANIFEST, manifest)
    shutil.rmtree(folder / PARTS)


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    kept = "name tags set icon licence licence_url author background cluster component split"
    return {key: row[key] for key in kept.split()}


def fingerprint(table: pa.Table) -> str:
    """Hash of the code version and of all that a model can see of the table: order, split, captions, pictures."""
    columns = ("split", "set", "icon", "name", "tags", "sha256", "cluster")
    return digest({"code": CODE, "table": [table[column].to_pylist() for column in columns]})
