"""The kernel matrix of pictures in a folder, one folder for each class, as one .npz file.

    python kernel_matrix.py pictures/ kernel.npz --size 32 --kernel ntk-v-6-all --test-share 0.2

The file has `train` (n, n) and `test` (m, n), in `own_test` (m,) the kernels of test images with themselves,
`y_train`, `y_test` and `classes`; names that `cntk-bench export` has, too, mean the same there. For more than
some thousand pictures use `cntk-bench run folder-of-pictures`, which goes on after an interruption.
"""

import argparse

import numpy as np

from cntk_bench import Readout, UserError, diagonal, gram, load_images


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder",
        help="FOLDER/CLASS/*.png, or FOLDER/train/CLASS/ and FOLDER/test/CLASS/",
    )
    parser.add_argument("target", help="the .npz file to write")
    parser.add_argument(
        "--size",
        type=int,
        help="pixels a side; by default as the pictures are, all of one size",
    )
    parser.add_argument(
        "--kernel",
        default="ntk-v-6-all",
        help="as a Readout is printed (default: %(default)s)",
    )
    parser.add_argument(
        "--test-share",
        type=float,
        help="part of each class for testing, where there is no train/ and test/",
    )
    given = parser.parse_args()
    try:
        readouts = [Readout.parse(given.kernel)]
        data = load_images(
            "folder", path=given.folder, size=given.size, test_share=given.test_share
        )
        train = gram(data.x_train, readouts=readouts)[0]
        test = gram(data.x_test, data.x_train, readouts=readouts)[0]
        own_test = diagonal(data.x_test, readouts=readouts)[0]
    except UserError as error:
        parser.error(str(error))
    np.savez(
        given.target,
        train=train.astype(np.float64),
        test=test.astype(np.float64),
        own_test=own_test.astype(np.float64),
        y_train=data.y_train,
        y_test=data.y_test,
        classes=np.array(data.class_names),
    )
    print(
        f"{given.target}: {readouts[0]}, {len(train)} training and {len(test)} test images"
    )


if __name__ == "__main__":
    main()
