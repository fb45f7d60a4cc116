"""Shards of episodes as tokens on the disk, verified when they are read.

files.py     files that are there in full or not at all
strangers.py the names that a folder from elsewhere may hold
manifest.py  dataset.json and manifest.json
spaces.py    Gymnasium spaces as JSON
shards.py    EncodedEpisode, ShardWriter, append_episodes
sample.py    Sample, DamagedShard: a block of episodes, verified
index.py     where each episode stands
remote.py    datasets on other machines, through fsspec
reader.py    TaskData
validate.py  validate: every byte against the manifest
"""
