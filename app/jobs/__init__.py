"""JOBS: many rows answered on the server's own time; kept on disk, so that a restart loses none."""
