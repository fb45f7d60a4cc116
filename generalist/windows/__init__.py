"""What training sees: rows of exactly one window, drawn from a mixture of tasks.

weights.py    shares of tasks and families
selection.py  which episodes are taken
spec.py       DatasetSpec (datasets/*.yaml)
patterns.py   patterns such as `babyai/*` in a spec
mixture.py    open_mixture: the tasks of one or several folders, with their weights
demonstrations.py  Demonstrations: what may be shown before a segment
packing.py    Packer: which segments make up a row
windows.py    WindowSampler: the rows themselves
inspect.py    describe: what a dataset holds
"""
