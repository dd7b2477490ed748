#!/bin/sh
# Starts the server the way the platforms of custom models do. A model folder may bring one of its own instead.
exec /opt/backline/bin/backline serve "${CODE_DIR:-/opt/code}" "$@"
