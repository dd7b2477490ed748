"""The custom-model contract: what a model folder may hold and what its hooks take and return."""
