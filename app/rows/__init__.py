"""ROWS: what stands for one row in a manifest, and where its bytes are; for `trichord score` and for jobs."""
