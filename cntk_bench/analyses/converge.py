"""The analysis `converge`: compare finite networks of growing width with their limit (measures: `finite`).

    RUN/converge/networks/KIND-DEPTH-WIDTH-SEED.json   one network's results and settings; a SHA-256
    RUN/converge/converge.json                         all of them, means over networks, slopes against width
    RUN/converge/converge.txt, .md, .png, .svg, .pdf   the report
    RUN/converge/lock                                  held by the one process that works there

A network that has a file is not measured again: an interrupted call resumes, and more widths, seeds, depths
or kinds are added to those already there.
"""

import json
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from cntk_bench import networks
from cntk_bench.analyses import finite, widths
from cntk_bench.config.config import Config
from cntk_bench.config.sections import Converge
from cntk_bench.data import Dataset
from cntk_bench.errors import UserError
from cntk_bench.records import record, sealed
from cntk_bench.records.directory import Run
from cntk_bench.runs import images
from cntk_bench.system import lock
from cntk_bench.system.files import read_plain, require_no_link, require_own, writing
from cntk_bench.text import short

FORMAT = 1
PLACE = ("kind", "depth", "width", "seed")
WHICH = ("kinds", "depths", "widths", "seeds", "trained", "memory")  # keys that change no network's numbers


def converge(run: Run, settings: Config, progress: Callable[[int, int], Any] | None = None) -> dict:
    """Measure the missing networks, and gather the results of all.

    Parameters
    ----------
    run : Run
    settings : Config
        Section `converge` selects the networks, `dataset` the images.
    progress : callable, optional
        Called with the number of finished networks and the number of all.

    Returns
    -------
    dict
        The content of converge.json: made (a stage as in a record), data, networks, means and slopes.

    Raises
    ------
    UserError
        If PyTorch is missing, a network is not possible here, or the directory holds networks measured with
        other settings.
    """
    networks.require()
    how = settings.converge
    loaded = images.load(settings, how.images, 1)
    if how.outputs > loaded.classes:
        raise UserError(
            f"converge.outputs is {how.outputs}: use at most {loaded.classes}, the number of classes"
        )
    for kind, depth, width in product(how.kinds, how.depths, sorted(how.widths)):
        finite.require(kind, depth, width, loaded, how)
    asked = {key: value for key, value in how.model_dump(mode="json").items() if key not in WHICH}
    asked |= {"fingerprint": images.image_facts(loaded).fingerprint}
    stage = record.stage("converge", settings.sections("dataset", "preprocess", "converge"))
    folder = folder_of(run)
    require_no_link(folder)
    require_own(folder, "networks")
    with writing(folder):
        (folder / "networks").mkdir(parents=True, exist_ok=True)
    every = list(product(how.kinds, how.depths, sorted(how.widths), range(how.seeds)))
    exact = cache(
        lambda kind, depth: finite.limit(loaded.x_train, kind, depth, how.beta, settings.compute.backend)
    )
    with lock.held(folder / "lock"):
        found = {one: kept for one in every if (kept := _kept(folder, one, asked, how)) is not None}
        for one in sorted(set(every) - set(found), key=lambda one: (one[2], every.index(one))):
            if progress:
                progress(len(found), len(every))
            found[one] = _measured(folder, one, asked, loaded, exact(*one[:2]), how)
        if progress:
            progress(len(found), len(every))
        data = {"name": loaded.name, "images": how.images, "classes": loaded.classes,
                "train_index": " ".join(map(str, loaded.train_index))}  # fmt: skip
        result = {"format": FORMAT, "name": settings.name, "made": stage, "data": data}
        result |= widths.gathered([found[one] for one in every])
        return sealed.write(folder / "converge.json", result)


def folder_of(run: Run) -> Path:
    """Return the folder of the analysis in a run."""
    return run.path / "converge"


def _path(folder: Path, one: tuple) -> Path:
    return folder / "networks" / f"{'-'.join(map(str, one))}.json"


def _measured(
    folder: Path, one: tuple, asked: dict, loaded: Dataset, exact: finite.Limit, how: Converge
) -> dict:
    from cntk_bench.networks.device import fitting

    kind, depth, width, seed = one
    with fitting(
        f"{kind} at depth {depth}, width {width:,}", "use smaller converge.widths or converge.images"
    ):
        found = finite.measure(kind, depth, width, seed, loaded, exact, how)
    place = dict(zip(PLACE, one, strict=True))
    more = {"trained": seed < how.trained}
    item = {"format": FORMAT, "asked": asked, **place, **more, **found}
    return sealed.write(_path(folder, one), item)


def _kept(folder: Path, one: tuple, asked: dict, how: Converge) -> dict | None:
    """Return what an earlier call measured; None if it is missing, incomplete or damaged.

    Only the digest shows that a file is intact, since a wrong number may look as likely as the right one.
    Files of earlier versions have none, and converge.json, made from them, proves nothing: measured again.

    Raises
    ------
    UserError
        If it was measured with other settings or images.
    """
    path = _path(folder, one)
    try:
        item = json.loads(read_plain(path))
        digest = item.pop(sealed.SEAL, None)
        if digest is not None and digest != record.digest(item):
            return None
        if item["format"] != FORMAT or [item[key] for key in PLACE] != list(one):
            return None
        too_little, before = item["trained"] < (one[3] < how.trained), item["asked"]
        different = [key for key in asked if before.get(key) != asked[key]]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"cannot read {short(str(path))} ({error.strerror}): make it readable") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # not what we wrote
        return None
    if different:
        key = different[0]
        told = (
            "other images"
            if key == "fingerprint"
            else f"converge.{key}={short(before.get(key))}, not {short(asked[key])}"
        )
        raise UserError(
            f"{short(str(folder))} holds networks of {told}: use another --output, or remove that folder"
        )
    return None if digest is None or too_little else item
