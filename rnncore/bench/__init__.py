"""Measure the engine beside others on this machine: what ``rnncore bench`` runs.

In the order of reading: ``cases`` says which shapes there are, ``peers`` who runs them, ``modes``,
``products`` and ``variants`` with ``beside_plain`` what is asked for, ``contest`` how one row is
measured (``measure`` the clock, ``limits`` the machine, ``peak_memory``), ``aims`` what is to be
reached, ``results`` what comes out, ``table`` and ``picture`` how it is shown, and
``program`` the order of events.
"""
