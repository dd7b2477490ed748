"""Looks at a model before it is served: ``validate`` tries it, ``doctor`` looks at what it stands on."""
