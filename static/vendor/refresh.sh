#!/bin/sh
# Fetches the vendored browser files again, at the versions named here, from the configured npm registry.
set -eu
cd "$(dirname "$0")"
SWAGGER_UI=5.35.0
TABLER=1.6.1
ICONS=3.51.0
HTMX=4.0.1
UPLOT=1.6.32
AXE=4.14.1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() { # fetch PACKAGE@VERSION: unpacks it to $work/package
  rm -rf "$work/package"
  (cd "$work" && tar xzf "$(npm pack --silent "$1")")
}

put() { # put FOLDER FILE...: the files of the package, without their folders there
  folder=$1
  shift
  mkdir -p "$folder"
  for file in "$@"; do
    # Source maps are left out, and so are the comments that ask the browser for them.
    sed -E 's#/[*/][#@] sourceMappingURL=[^ *]*( \*/)?##' "$work/package/$file" > "$folder/$(basename "$file")"
  done
}

fetch "swagger-ui-dist@$SWAGGER_UI"
put swagger-ui swagger-ui-bundle.js swagger-ui.css LICENSE NOTICE
fetch "@tabler/core@$TABLER"
put tabler dist/css/tabler.min.css dist/js/tabler.min.js
fetch "htmx.org@$HTMX"
put htmx dist/htmx.min.js LICENSE
fetch "uplot@$UPLOT"
put uplot dist/uPlot.min.css dist/uPlot.iife.min.js LICENSE
fetch "axe-core@$AXE"
put ../../tests/browser/vendor axe.min.js LICENSE LICENSE-3RD-PARTY.txt
fetch "@tabler/icons@$ICONS"
put icons LICENSE
node sprite.mjs "$work/package/icons" icons/names.txt > icons/sprite.svg
node compress.mjs swagger-ui/*.js swagger-ui/*.css tabler/* htmx/*.js uplot/*.css uplot/*.js icons/sprite.svg
