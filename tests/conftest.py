"""Options and fixtures of all tests."""

import signal

import pytest

# A shell starts background jobs with SIGINT ignored, and so would be what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="run the tests that repeat a thousandfold")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--soak"):
        return
    skip = pytest.mark.skip(reason="repeats a thousandfold: --soak")
    for item in items:
        if "soak" in item.keywords:
            item.add_marker(skip)
