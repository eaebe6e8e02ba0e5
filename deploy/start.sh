#!/bin/sh
# The container's start: migrations, then the server in place of this shell.
set -eu
. "$(dirname "$0")/settings.sh"

python run.py migrate
exec python run.py --prod "$@"
