"""What a run's store holds, and what a config asks it to hold: the backend, the tiles, the images."""

import logging

from cntk_bench import backends
from cntk_bench.config.config import Config
from cntk_bench.data import Dataset
from cntk_bench.errors import UserError, VerificationError
from cntk_bench.grams import compute as grams
from cntk_bench.grams import description, growth
from cntk_bench.grams.store import Store
from cntk_bench.grams.tiles import Plan
from cntk_bench.kernels.spec import CONVOLUTIONAL, Readout, Spec
from cntk_bench.records.directory import Run
from cntk_bench.runs import images
from cntk_bench.text import short

log = logging.getLogger(__name__)
MANY = 20  # tiles beside each other, beyond which small ones are worth a warning


def cut(
    settings: Config, loaded: Dataset, backend: str, run: Run | None = None, donor: Run | None = None
) -> tuple[Spec, Plan]:
    """What is computed for a config, and how it is cut into tiles: as in the run or donor there is.

    Raises
    ------
    UserError
        If a convolutional kernel of vectors is asked for, or one of mirror images.
    """
    spec = Spec(settings.kernel.readouts, *loaded.x_train.shape[1:3])
    convolved, flipped = spec.part(CONVOLUTIONAL), [one for one in spec.readouts if one.flip]
    if spec.size == 1 and spec.features > 1 and (convolved or flipped):  # one number is an image of one pixel
        found = f"the data are vectors of {spec.features:,} numbers"
        if convolved:
            raise UserError(
                f"{found}, and convolutional kernels, such as {convolved.readouts[0]}, are of images: use "
                "columns such as FC-NTK, or give images (n, P, P)"
            )
        raise UserError(
            f"{found}, which have no mirror images, as of {flipped[0]}: use columns without -FLIP"
        )
    tile = None if settings.compute.tile == "auto" else settings.compute.tile
    sizes = len(loaded.x_train), len(loaded.x_test)
    there = _side(tile, run, donor)
    if there is None:
        return spec, grams.make_plan(spec, *sizes, backend, tile, loaded.draws)
    if tile is not None and there < tile and sizes[0] > MANY * there:
        log.warning(
            "tiles have the side %d, of the images that there were at first, not %d, and are many: begin a "
            "new run, with --from this one",
            *(there, tile),
        )
    return spec, Plan(*sizes, there, len(spec.readouts), loaded.draws)


def _side(tile: int | None, run: Run | None, donor: Run | None) -> int | None:
    """The side of the tiles that there are, of the run or of the donor, where it is gone on with: no other is
    asked, or the run was begun with the same, which then was more than it had images."""
    for other in (run, donor):
        if other is not None and description.exists(other.gram):
            there = description.read(other.gram)
            if tile is None or (other is run and there.get("tile_asked") == tile):
                return there["tile"]
    return None


def backend_name(asked: str, run: Run) -> str:
    """The backend asked for; for "auto", the one that a run was begun with, if it was."""
    if asked == "auto" and description.exists(run.gram):
        asked = description.read(run.gram)["backend"]
        if asked in backends.names() and asked not in backends.available():
            raise UserError(
                f"{short(str(run.path))} was begun with the {asked} backend, which does not work here: "
                "go on where it does, or begin another run"
            )
    return backends.choose(asked)


def attributes(spec: Spec, settings: Config, loaded: Dataset, backend: str) -> dict:
    """What a store says of itself (`grams.description`)."""
    return {
        "readouts": [str(readout) for readout in spec.readouts],
        "backend": backend,
        **backends.versions(backend, spec),
        "dtype": "float32",
        **({} if settings.compute.tile == "auto" else {"tile_asked": settings.compute.tile}),
    } | images.asked(settings, loaded)


def require_same(target: Store, settings: Config, loaded: Dataset) -> None:
    """Refuse a store of other images or labels.

    Raises
    ------
    UserError
        If it has others.
    VerificationError
        If the labels are others.
    """
    kept = images.kept(loaded)
    growth.require_images(target, images.asked(settings, loaded), kept)
    if not growth.labels_fit(target, kept):
        raise VerificationError(
            f"the labels in {short(str(target.path))} are not those of the data: run `compute` again to "
            "restore them"
        )


def mended(run: Run, settings: Config, loaded: Dataset) -> tuple[Store, str]:
    """The run's store with whole facts of its images, and its backend's name, which must work here."""
    name, there = backend_name("auto", run), description.read(run.gram)
    readouts = tuple(map(Readout.parse, there["readouts"]))
    plan = Plan(len(loaded.x_train), len(loaded.x_test), there["tile"], len(readouts))
    spec = Spec(readouts, *loaded.x_train.shape[1:3])
    return growth.ensure(run.gram, plan, attributes(spec, settings, loaded, name), images.kept(loaded)), name


def convert(run: Run, settings: Config, loaded: Dataset) -> None:
    """Let a store of format 1 that is to grow know its images, by those that it was made of."""
    if not description.exists(run.gram):
        return
    there = description.read(run.gram)
    sizes = there["n_train"], there["n_test"]
    if "data" in there and sizes != (len(loaded.x_train), len(loaded.x_test)):
        mended(run, settings, images.load(settings, *sizes))
