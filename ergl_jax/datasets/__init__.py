"""Recordings and their labels: manifests and corpora, prepared features, batches."""
