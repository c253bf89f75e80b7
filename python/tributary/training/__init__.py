"""Training, from a configuration to a run: `train` is the loop, `preparation` what it needs before its first step.

`databases` and `mixture` make the stream, `losses` and `optim` say what is learned and how, `devices` where,
`validation` how well; `journal`, `cost`, `operations`, `run_plots` and `trackers` tell of it. Described in
`documentation/training.md`.
"""
