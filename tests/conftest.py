"""What all tests share: two logical CPU devices, an empty gin configuration, the real data."""

import importlib.util
import logging
import os
import pathlib
import sys

import gin
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")  # bit for bit is said of the CPU
# Its warnings of retraced functions tell which tests a process ran before, and would join what a test listens to.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

ROOT = pathlib.Path(__file__).parent.parent


class _TwoDevices:
    """Splits the CPU in two the moment TensorFlow is first imported: later it is too late, and tests that do
    not need TensorFlow need not wait for it."""

    def find_spec(self, name, path=None, target=None):
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            cpu = module.config.list_physical_devices("CPU")[0]
            module.config.set_logical_device_configuration(
                cpu, [module.config.LogicalDeviceConfiguration() for _ in range(2)]
            )

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _TwoDevices())


@pytest.fixture(autouse=True)
def _empty_configuration():
    gin.clear_config()
    yield
    gin.clear_config()


@pytest.fixture(scope="session")
def data_root() -> pathlib.Path:
    """The folder of the real data sets: T2T_VQEM_DATA, or `shared/data` beside the checkout."""
    root = pathlib.Path(os.environ.get("T2T_VQEM_DATA", ROOT.parent / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"the real data are not at {root}; T2T_VQEM_DATA names their folder")
    return root


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest file first: a process that came to it last would leave the others idle."""
    items.sort(key=lambda item: item.path.name != "test_quickstart.py")
