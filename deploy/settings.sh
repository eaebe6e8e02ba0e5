# Sourced by the other scripts of the container: settings from the files of its secrets. Variables of the
# environment show in `docker inspect`; files do not.
secrets=${SECRETS_DIR:-/run/secrets}

if [ -r "$secrets/admin_password" ]; then
    PULVINAR_ADMIN_PASSWORD=$(cat "$secrets/admin_password")
    export PULVINAR_ADMIN_PASSWORD
fi
if [ -r "$secrets/postgres_password" ]; then
    # As part of a URL it may hold letters, digits, `-`, `_`, `.` and `~` only; `openssl rand -hex 24` makes such.
    PULVINAR_DATABASE__URL="postgresql://pulvinar:$(cat "$secrets/postgres_password")@${POSTGRES_HOST:-postgres}/pulvinar"
    export PULVINAR_DATABASE__URL
fi
