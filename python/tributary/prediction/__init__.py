"""Answers of a trained run: `predict` opens it and asks, `ask` takes a question in one line.

`calibration` puts quantiles around numbers, `explain` says what an answer depends on, `row_embeddings` exports vectors,
`parts` lets long files be gone on with. Described in `documentation/prediction.md`.
"""
