"""What a run keeps: checkpoints with their digests, which of them stay, and what it learned of its databases.

`checkpoint` saves and restores, `writer` writes while training goes on, `retention` says what stays, `learned` holds
units and vectors of the databases a model was trained on. Knows neither training nor prediction.
"""
