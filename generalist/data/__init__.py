"""From episodes to rows of tokens: shards on disk, a verified reader, packed windows, mixtures."""
