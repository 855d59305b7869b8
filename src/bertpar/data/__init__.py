"""Datasets and snapshots.

Nothing is imported here, so that `bertpar.data.precheck` (standard library only) starts at once:

- `precheck.check_files`: what can be said about a dataset's files before anything starts.
- `snapshot.make_snapshot`: read, check, split and tokenise a dataset, and publish it once.
- `snapshot.open_split`: one split of a snapshot, verified and memory-mapped.
- `snapshot.fetch_tokenizer`: the files of its tokenizer, verified.
"""
