#!/bin/sh
# Fetches the vendored browser files again, at the versions named here, from the configured npm registry.
set -eu
cd "$(dirname "$0")"
SWAGGER_UI=5.35.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && npm pack --silent "swagger-ui-dist@$SWAGGER_UI" && tar xzf ./*.tgz)
mkdir -p swagger-ui
for file in swagger-ui-bundle.js swagger-ui.css LICENSE NOTICE; do
  cp "$work/package/$file" swagger-ui/
done
