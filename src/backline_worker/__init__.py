"""The model's side of Backline: standard library only, Python 3.8 and later.

This package is loaded by its path into the model's own interpreter (``_boot/boot.py``), so nothing of the server's
environment comes with it. pandas, numpy, pyarrow and the model libraries are used when the model's environment has
them; they are imported late, where the work needs them, and a missing one is named in the error.
"""
