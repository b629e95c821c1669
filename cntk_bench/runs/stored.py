"""What a run's store holds, and what a config asks it to hold: backend, tiles and images."""

import logging

from cntk_bench import backends
from cntk_bench.config.config import Config
from cntk_bench.data import Dataset
from cntk_bench.errors import UserError, VerificationError
from cntk_bench.grams import compute as grams
from cntk_bench.grams import description, growth, missing
from cntk_bench.grams.missing import Missing
from cntk_bench.grams.store import Store
from cntk_bench.grams.tiles import Plan
from cntk_bench.kernels.spec import CONVOLUTIONAL, Readout, Spec
from cntk_bench.records.directory import Run
from cntk_bench.runs import images
from cntk_bench.text import short

log = logging.getLogger(__name__)
MANY = 20  # tiles in a row beyond which small tiles are worth a warning


def spec_of(settings: Config, loaded: Dataset) -> Spec:
    """What to compute for a config.

    Raises
    ------
    UserError
        If the data are vectors, and a kernel is convolutional or uses mirror images.
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
    return spec


def cut(
    spec: Spec,
    settings: Config,
    loaded: Dataset,
    backend: str,
    run: Run | None = None,
    donor: Run | None = None,
) -> Plan:
    """Return the tiles of a config: as in an existing run or donor, if there is one."""
    tile = None if settings.compute.tile == "auto" else settings.compute.tile
    sizes = len(loaded.x_train), len(loaded.x_test)
    there = _side(tile, run, donor)
    if there is None:
        return grams.make_plan(spec, *sizes, backend, tile, loaded.draws)
    if tile is not None and there < tile and sizes[0] > MANY * there:
        log.warning(
            "tiles have the side %d, of the images that there were at first, not %d, and are many: begin a "
            "new run, with --from this one",
            *(there, tile),
        )
    return Plan(*sizes, there, len(spec.readouts), loaded.draws)


def _side(tile: int | None, run: Run | None, donor: Run | None) -> int | None:
    """The existing side of tiles, of the run or else of the donor, if it is to be kept; None if not.

    It is kept if no side is asked for, or if the run was begun with the same request, which may have exceeded
    its number of images then, so that its tiles are smaller.
    """
    for other in (run, donor):
        if other is not None and description.exists(other.gram):
            there = description.read(other.gram)
            if tile is None or (other is run and there.get("tile_asked") == tile):
                return there["tile"]
    return None


def backend_name(asked: str, run: Run, spec: Spec | None = None) -> str:
    """The backend asked for; for "auto" the one with which the run was begun, or else one for the spec."""
    if asked == "auto" and description.exists(run.gram):
        asked = description.read(run.gram)["backend"]
        if asked in backends.names() and asked not in backends.available():
            raise UserError(
                f"{short(str(run.path))} was begun with the {asked} backend, which does not work here: "
                "go on where it does, or begin another run"
            )
    return backends.choose(asked, spec)


def attributes(spec: Spec, settings: Config, loaded: Dataset, backend: str) -> dict:
    """A store's description of itself (`grams.description`)."""
    return {
        "readouts": [str(readout) for readout in spec.readouts],
        "backend": backend,
        **backends.versions(backend, spec),
        "dtype": "float32",
        **({} if settings.compute.tile == "auto" else {"tile_asked": settings.compute.tile}),
    } | images.asked(settings, loaded)


def remaining(run: Run, plan: Plan, spec: Spec, settings: Config, loaded: Dataset, backend: str) -> Missing:
    """What `compute` would have to compute for a plan; a store that exists is only read.

    Raises
    ------
    UserError
        If the store is of another computation, or cannot be read.
    """
    if not description.exists(run.gram):
        return missing.whole(plan)
    asked = attributes(spec, settings, loaded, backend)
    return growth.remaining(run.gram, plan, asked, images.image_facts(loaded))


def require_images_and_labels(target: Store, settings: Config, loaded: Dataset) -> None:
    """Refuse a store of other images or labels.

    Raises
    ------
    UserError
        If its images differ.
    VerificationError
        If its labels differ.
    """
    kept = images.image_facts(loaded)
    growth.require_images(target, images.asked(settings, loaded), kept)
    if not growth.labels_fit(target, kept):
        raise VerificationError(
            f"the labels in {short(str(target.path))} are not those of the data: run `compute` again to "
            "restore them"
        )


def mended(run: Run, settings: Config, loaded: Dataset) -> tuple[Store, str]:
    """Repair what a run's store keeps about its images; return the store and its backend, which must work."""
    name, there = backend_name("auto", run), description.read(run.gram)
    readouts = tuple(map(Readout.parse, there["readouts"]))
    plan = Plan(len(loaded.x_train), len(loaded.x_test), there["tile"], len(readouts))
    spec = Spec(readouts, *loaded.x_train.shape[1:3])
    asked = attributes(spec, settings, loaded, name)
    return growth.ensure(run.gram, plan, asked, images.image_facts(loaded)), name


def convert(run: Run, settings: Config, loaded: Dataset) -> None:
    """If a store of format 1 is to grow, add the facts about its images, from the images it was made of."""
    if not description.exists(run.gram):
        return
    there = description.read(run.gram)
    sizes = there["n_train"], there["n_test"]
    if "data" in there and sizes != (len(loaded.x_train), len(loaded.x_test)):
        mended(run, settings, images.load(settings, *sizes))
