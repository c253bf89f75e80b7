"""How good a run is, and beside what: `evaluate` for a run, `several` for many, `promote` for gates.

`judge` scores predictions, `regimes` says what a seed may see, `baselines` and `features` are what a model has to beat,
`verdicts` says in a sentence whether it does. Described in `documentation/evaluation.md`.
"""
