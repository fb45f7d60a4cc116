"""Importers: data that others recorded, to the same shards as `collect` writes."""
