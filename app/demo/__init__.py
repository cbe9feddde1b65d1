"""The demo: draws a collection of synthetic butterflies, and does the whole job on it.

Nothing is downloaded and nothing is scripted: specimens are drawn from numbers, imported by the
same verbs as anybody's photographs, and the replay asks an oracle that knows the labels.
Start reading at `showing`.
"""
