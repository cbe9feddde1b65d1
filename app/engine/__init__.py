"""Arrays in, arrays out: free of web, database, settings, clock and global randomness."""


class EngineError(Exception):
    """A situation the engine cannot work with; `str()` says which and what to do.

    Its kinds stand in the file that raises them: `index.py` (VectorsNotUsable, IndexIncomplete,
    IndexDamaged, UnknownImages), `strategies/` (UnknownStrategy), `embedders/`.
    """
