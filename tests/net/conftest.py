import pytest

from hpcdata.net.loop import Loop


@pytest.fixture
def loop():
    made = Loop("test")
    yield made
    made.close()
