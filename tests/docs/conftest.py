import pytest
import typer
from tidings.node.cli import whole


@pytest.fixture(scope="session")
def program():
    """The command line as `main` puts it together."""
    return typer.main.get_command(whole())
