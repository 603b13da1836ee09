"""Offline: train, measure, calibrate and export. torch lives here and nowhere else.

Sees `app.bundle` (the contract and the path from bytes to arrays) and `app.runtime` (to check what it
exports), nothing above.
"""
