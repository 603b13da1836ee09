"""`python -m app` is the `trichord` command."""

from app.cli import app

app()
