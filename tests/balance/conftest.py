import pytest
from opposed import Problem


@pytest.fixture
def problem():
    return Problem()
