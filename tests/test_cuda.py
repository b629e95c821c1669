"""The CUDA backend on a GPU."""

import pytest
from backend_suite import BackendSuite

from cntk_bench.backends.cuda import Backend, available


@pytest.mark.skipif(not available(), reason="no CuPy, or no NVIDIA GPU")
class TestCuda(BackendSuite):
    def create(self, spec):
        return Backend(spec)
