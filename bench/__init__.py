"""Measures Ringfence against QEMU and the host itself, always side by side in one run.

``python -m bench start``, ``boot`` and ``compute``; ``--help`` lists their options. A figure
alone says little on a busy machine; the ratios of figures taken by turns do.
"""
