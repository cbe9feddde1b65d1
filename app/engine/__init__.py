"""Arrays in, arrays out: free of web, database, settings, clock and global randomness."""

import os

# Threads of OpenMP (of FAISS and scikit-learn) that wait for their next work would do so by looking
# all the time: beside a short fit that is as much of the processor again as the fit itself. Read
# when these libraries are loaded, so it stands before the first import of any of them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


class EngineError(Exception):
    """A situation the engine cannot work with; `str()` says which and what to do.

    Its kinds stand in the file that raises them: `index.py` (VectorsNotUsable, IndexIncomplete,
    IndexDamaged, UnknownImages), `strategies/` (UnknownStrategy), `embedders/`.
    """
