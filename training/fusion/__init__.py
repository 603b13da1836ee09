"""From what the encoders say to one answer: ten ways at feature and model level, five at prediction level.

`contract.py` says what every fusion takes and gives, `build.py` makes one from its spec.
"""
