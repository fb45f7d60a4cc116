"""From episodes to rows of tokens: shards on disk, a verified reader, packed windows, mixtures.

files.py     files that are there in full or not at all
manifest.py  dataset.json and manifest.json
shards.py    EncodedEpisode, ShardWriter, append_episodes
encode.py    Episode -> EncodedEpisode
sample.py    Sample, DamagedShard: a block of episodes, verified
index.py     where each episode stands
reader.py    TaskData
validate.py  validate: every byte against the manifest
inspect.py   describe: what a dataset holds
windows.py   WindowSampler, rows_for: training rows
mixture.py   DatasetSpec (datasets/*.yaml), open_mixture
collect.py   collect; worker.py is what its processes do
"""
