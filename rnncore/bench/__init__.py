"""Measure the engine beside others on this machine: what ``rnncore bench`` runs.

In the order of reading: ``cases`` says which shapes there are, ``peers`` who runs them, ``modes``
and ``products`` what is asked for, ``contest`` how one row is measured (``measure`` the clock,
``limits`` the machine), ``results`` what comes out, ``table`` and ``picture`` how it is shown, and
``program`` the order of events.
"""
