"""The store: immutable bundles under a root that is a folder or any fsspec URL.

A *bundle* is a folder of files with a `manifest.json` that names each file's size and sha256. Its manifest is
its commit record: what has none does not exist for a reader. On a local disk the whole folder appears by one
rename; elsewhere the manifest is uploaded last. What differs from its manifest is damaged, and never handed out.

Layout: `specs/<digest>`, `tokenizers/<digest>`, `snapshots/<key>`,
`runs/<run_id>/checkpoints/attempt-<n>/step-<8 digits>`, `runs/<run_id>/evaluation/...`, `predictions/<id>/...`;
below `damaged/`, under their old keys, what was set aside to be looked at.
"""

from bertpar.store.bundle import MANIFEST, POINTS, Bundle, FileDigest, sha256_of, write_hashed
from bertpar.store.local import Debris
from bertpar.store.store import Store

__all__ = ["MANIFEST", "POINTS", "Bundle", "Debris", "FileDigest", "Store", "sha256_of", "write_hashed"]
