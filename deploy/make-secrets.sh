#!/bin/sh
# Makes the passwords that docker-compose.yml reads, where there are none yet. They are never printed.
set -eu
folder=$(dirname "$0")/secrets
mkdir -p "$folder"
# Containers read them as users of their own; nobody else on this machine gets past the folder.
chmod 700 "$folder"
for name in postgres_password admin_password grafana_password; do
    [ -s "$folder/$name" ] && continue
    (umask 022 && head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$folder/$name")
    echo "made $folder/$name"
done
