"""What training sees: rows of exactly one window, drawn from a mixture of tasks.

weights.py         shares of tasks and families
selection.py       which episodes are taken
spec.py            DatasetSpec (datasets/*.yaml)
patterns.py        patterns such as `babyai/*` in a spec
mixture.py         open_mixture: the tasks of one or several folders, with their weights
views.py           View: what is shown of the timesteps that are stored
folders.py         Folder: headers that fit, episodes drawn by their steps
demonstrations.py  Demonstrations: what may be shown before a segment
packing.py         Packer: which segments make up a row
batch.py           Batch: rows as arrays, put together from their segments
windows.py         WindowSampler: the rows themselves
inspect.py         describe: what a dataset holds
"""
