import pytest
import typer
from tidings.node.cli import app
from tidings.node.doc_commands import app as doc_app


@pytest.fixture(scope="session")
def program():
    """The command line as `main` puts it together."""
    if doc_app not in [group.typer_instance for group in app.registered_groups]:
        app.add_typer(doc_app, name="doc")
    return typer.main.get_command(app)
