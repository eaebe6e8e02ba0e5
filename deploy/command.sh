#!/bin/sh
# A command on the database of the server in this container: docker compose exec app sh deploy/command.sh user list
# Without the settings that the server was started with, it would make a database of its own.
set -eu
. "$(dirname "$0")/settings.sh"

exec python run.py "$@"
