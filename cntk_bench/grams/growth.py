"""Creation and growth of stores: images and readouts are added at the end, and computed tiles are kept."""

import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from cntk_bench.errors import UserError, VerificationError
from cntk_bench.grams import chunks, description, image_facts, missing, objects
from cntk_bench.grams.chunks import zarr
from cntk_bench.grams.image_facts import ImageFacts
from cntk_bench.grams.missing import Missing
from cntk_bench.grams.store import Store, open
from cntk_bench.grams.tiles import PARTS, Plan
from cntk_bench.system.bucket import Bucket
from cntk_bench.system.files import PARTIAL, flush, require_no_link, try_lock, write_atomic, writing
from cntk_bench.text import short

log = logging.getLogger(__name__)

ANOTHER = "use another output directory (--from takes what is the same), or the settings it was made with"
CONVERT = (
    "an older version made it, which knew its images only all together: run `compute` on it once, with as "
    "many images as you like"
)


def create(path: str | Path | Bucket, plan: Plan, asked: Mapping[str, Any], facts: ImageFacts) -> Store:
    """Make a new store, atomically.

    Parameters
    ----------
    path : path-like or Bucket
        Must not exist, or be an empty directory. Chunks without a store, which remain if a run is
        moved away while it is being written, are set aside.
    plan : Plan
    asked : mapping
        As for `description.attributes`.
    facts : ImageFacts

    Raises
    ------
    UserError
        If the path is taken, or cannot be written.
    """
    files: dict = {}
    attributes = description.attributes(plan, asked) | image_facts.kept(facts.digests)
    group = zarr.create_group(zarr.storage.MemoryStore(files), attributes=attributes, zarr_format=3)
    chunks.create(group, plan)
    image_facts.write(group, facts)
    if isinstance(path, Bucket):
        objects.create(path, files)
        return open(path)
    path = Path(path)
    require_no_link(path)
    fresh = path.with_name(f".{path.name}-{uuid.uuid4().hex}{PARTIAL}")
    try:
        with writing(path), _locked(fresh):
            for name, content in files.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).write_bytes(content.to_bytes())
            for name in (*fresh.rglob("*"), fresh):
                flush(name)
            _set_stray_chunks_aside(path)
            fresh.rename(path)
            flush(path.parent)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return open(path)


@contextmanager
def _locked(fresh: Path) -> Iterator[None]:
    """Make a folder and lock it, which tells others that it is in use (`files.remove_partial`)."""
    fresh.mkdir(parents=True)
    handle = os.open(fresh, os.O_RDONLY)
    try:
        try_lock(handle)
        yield
    finally:
        os.close(handle)


def ensure(path: str | Path | Bucket, plan: Plan, asked: Mapping[str, Any], facts: ImageFacts) -> Store:
    """Open the store of a computation, creating it if it does not exist and growing it if it lacks something.

    A store may hold more than is asked for: further readouts, and images after those asked for.
    Damaged labels, indices and digests of images are written again.

    Parameters and errors are as for `create` and `open`; also raises UserError, with the differences
    in words, if the store holds another computation.
    """
    path = path if isinstance(path, Bucket) else Path(path)
    if not description.exists(path):
        try:
            return create(path, plan, asked, facts)
        except UserError:
            if not description.exists(path):  # otherwise another process has just made it
                raise
    store = open(path)
    require(store, plan, asked, facts)
    if _lacks(store, plan, asked, facts):
        with store.alone():  # reads it again, as others may have changed it
            tag = description.read_tagged(path)[1]
            require(store, plan, asked, facts)
            if _lacks(store, plan, asked, facts):
                _grow(store, plan, asked, facts, tag)
        store = open(path)
    return store


def _lacks(store: Store, plan: Plan, asked: Mapping, facts: ImageFacts) -> bool:
    """Whether a store must be changed to hold what is asked for."""
    larger = plan.n_train > store.plan.n_train or plan.n_test > store.plan.n_test
    older = store.attributes["cntk_bench_format"] < description.FORMAT
    if larger or older or set(asked["readouts"]) - set(store.readouts):
        return True
    try:
        known = store.images()
    except VerificationError:
        return True
    if any(getattr(known, name) is None and getattr(facts, name) is not None for name in image_facts.NAMES):
        return True
    return not labels_fit(store, facts)


def remaining(path: Path | Bucket, plan: Plan, asked: Mapping[str, Any], facts: ImageFacts) -> Missing:
    """What would have to be computed in a store that exists; it is only read. Otherwise like `ensure`."""
    store = open(path)
    require(store, plan, asked, facts)
    readouts, grown = _grown(store, plan, asked)
    wanted = [readouts.index(name) for name in asked["readouts"]]
    return missing.of(store.progress.grown(grown), wanted, (plan.n_train, plan.n_test), plan.draws)


def require(store: Store, plan: Plan, asked: Mapping[str, Any], facts: ImageFacts) -> None:
    """Refuse a store of another computation, with the differences in words."""
    _refuse(store, description.differences(store.attributes, {**asked, "tile": plan.tile}), asked, facts)


def require_images(store: Store, asked: Mapping[str, Any], facts: ImageFacts) -> None:
    """Refuse images that are not the store's, with the differences in words; `asked` has images and data."""
    _refuse(store, [], asked, facts)


def _refuse(store: Store, found: list[str], asked: Mapping, facts: ImageFacts) -> None:
    unknown = [] if found else _unknown_images(store, asked, facts)
    found = [*found, *(unknown or _differing_images(store, asked, facts))]
    if found:
        remedy = CONVERT if unknown else ANOTHER
        raise UserError(f"{short(str(store.path))} holds another computation: {'; '.join(found)}: {remedy}")


def _unknown_images(store: Store, asked: Mapping, facts: ImageFacts) -> list[str]:
    """Describe how sizes differ, if that makes it impossible to tell whether the images do (format 1)."""
    if "data" not in store.attributes or store.attributes["data"] == asked.get("data"):
        return []
    sizes = dict(zip(description.NAMES, facts.sizes, strict=True))
    return description.differences(store.attributes, sizes, description.NAMES)


def _differing_images(store: Store, asked: Mapping, facts: ImageFacts) -> list[str]:
    """Describe how the store's images and ours differ; empty if one list begins with the other."""
    if "data" in store.attributes:  # format 1, which has a single digest of all images
        if store.attributes["data"] == asked.get("data"):
            return []
        return ["its images are others (pixels, labels or preprocessing)"]
    if facts.digests is None:
        return []
    sets = zip(("training", "test"), image_facts.NAMES["digests"], facts.digests, store.sizes, strict=True)
    for index, (kind, array, ours, n) in enumerate(sets):
        common = min(n, len(ours))
        one, other = image_facts.read_one(store.path, store.group, array, common), ours[:common]
        if one is None:
            if why := _unproven(store, array, index, ours):
                return [f"its {kind} images {why}"]
        elif not np.array_equal(one, other):
            first = int((one != other).argmax())
            words = description.differing_images(store.attributes, asked)
            if not words and np.array_equal(np.sort(one), np.sort(other)):
                return [
                    f"its {kind} images are the same in another order, which their labels decide unless "
                    "dataset.order is random"
                ]
            what = words or f"the first {kind} image that differs is number {first}"
            return [f"its {kind} images are others ({what})"]
    return []


def _unproven(store: Store, array: str, index: int, ours: np.ndarray) -> str | None:
    """Why a set's images, of these digests, are perhaps not the store's, whose own are missing or damaged."""
    kept, n = store.attributes.get(image_facts.KEPT), store.sizes[index]
    if kept is None:
        lost = image_facts.is_there(store.path, store.group, array)
        return "cannot be told from others, as their digests are damaged" if lost else None
    if len(ours) < n:
        return (
            f"cannot be told from others, as their digests are damaged: ask for all {n:,}, which mends this"
        )
    return None if image_facts.whole(ours[:n]) == kept[index] else "are others"


def labels_fit(store: Store, facts: ImageFacts) -> bool:
    """Whether the store's labels equal ours, for the images that both have."""
    sizes = _common(store, facts)
    pairs = zip(store.images(sizes).labels, facts.first(sizes).labels, strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


def _common(store: Store, facts: ImageFacts) -> tuple[int, int]:
    """Numbers of training and test images that both have."""
    (n_train, n_test), (others, tests) = store.sizes, facts.sizes
    return min(n_train, others), min(n_test, tests)


def _grow(store: Store, plan: Plan, asked: Mapping, facts: ImageFacts, tag: str) -> None:
    """Enlarge a store. The group's attributes, which decide what it holds, are written last, atomically.

    Parameters
    ----------
    tag : str
        Of the description in an object store (`description.read_tagged`) when we got the right to change it.
    """
    readouts, new = _grown(store, plan, asked)
    _unchanged(store, tag)
    with writing(store.path):
        store.chunks.resize(new)
        image_facts.write(store.group, facts, store.path)
        if isinstance(store.path, Path):
            # Else a power cut could leave the description, which is flushed, without what it describes.
            _flush_grown(store.path)
    known = image_facts.kept(image_facts.read(store.path, store.group, "digests", (new.n_train, new.n_test)))

    def change(there: dict) -> dict:
        past = {name: value for name, value in there.items() if name not in ("data", image_facts.KEPT)}
        if store.attributes["cntk_bench_format"] < description.FORMAT:
            past["first_sizes"] = list(store.sizes)
        return past | description.attributes(new, {"images": {}, **asked, "readouts": readouts}) | known

    _replace(store, change, tag)
    log.info(
        "%s holds %d readouts of %d and %d images now", store.path, len(readouts), new.n_train, new.n_test
    )


def _flush_grown(path: Path) -> None:
    """Flush to disk what a growth has written, but no tiles, which it leaves alone."""
    for part in PARTS:
        flush(path / part / "zarr.json")
        flush(path / part)
    for array in chain.from_iterable(image_facts.NAMES.values()):
        for file in (*(path / array).rglob("*"), path / array):
            flush(file)
    flush(path)


def _grown(store: Store, plan: Plan, asked: Mapping) -> tuple[tuple[str, ...], Plan]:
    """The readouts and the plan of a store that has grown to hold what is asked for."""
    readouts = (*store.readouts, *(name for name in asked["readouts"] if name not in store.readouts))
    n_train, n_test = max(plan.n_train, store.plan.n_train), max(plan.n_test, store.plan.n_test)
    return readouts, Plan(n_train, n_test, store.plan.tile, len(readouts))


def _unchanged(store: Store, tag: str) -> dict:
    """The group's metadata; UserError if they are no longer those of the store and the tag."""
    found = description.raw(store.path)
    group = json.loads(found[0]) if found is not None and found[1] == tag else None
    if group is None or not group["attributes"].items() <= store.attributes.items():
        raise description.changed(store.path)
    return group


def _replace(store: Store, change: Callable[[dict], dict], tag: str) -> None:
    """Replace a store's attributes by changed ones, atomically.

    Raises
    ------
    UserError
        If another process has changed them since the tag was read: a lock in an object store is lost if its
        holder was suspended.
    """
    group = _unchanged(store, tag)
    group["attributes"] = change(group["attributes"])
    text = json.dumps(group, indent=2)
    if isinstance(store.path, Path):
        write_atomic(store.path / "zarr.json", text)
    else:
        objects.put_description(store.path, text.encode(), tag)


def _set_stray_chunks_aside(path: Path) -> None:
    """Move away a folder that holds only chunks without a store; leave anything else."""
    found = [file for file in path.rglob("*") if not file.is_dir()] if path.is_dir() else []
    if found and chunks.are_stray(path, found):
        aside = path.with_name(f"{path.name}-stray-{uuid.uuid4().hex[:8]}")
        path.rename(aside)
        log.warning("%s held chunks without a store: they are in %s now", short(str(path)), aside.name)
