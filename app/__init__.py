"""Rarefind: find every image of one rare species in a large, unlabelled photo collection."""
