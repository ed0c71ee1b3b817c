#!/bin/sh
# A database dumped in each format and restored into others; prints what each dump is and holds.
#     dump_use.sh FOLDER_OF_PROGRAMS
set -eu
programs=$1
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
content() {
    "$programs/pg_dump" "$1" | grep -v restrict >"$1.content"  # its key is drawn anew each time
    sha256sum <"$1.content"
}
content "$PGDATABASE"
"$programs/pg_dump" --format=custom --file=whole.custom
"$programs/pg_dump" --format=directory --jobs=2 --file=whole.directory
"$programs/pg_dump" --format=tar --file=whole.tar
"$programs/pg_dump" --inserts --rows-per-insert=100 --schema-only --no-owner | grep -v restrict | sha256sum
"$programs/pg_restore" --list whole.custom | grep -vE '^;' | sha256sum
for from in custom directory tar plain; do
    "$programs/psql" -Xq -c "CREATE DATABASE restored_$from"
    case $from in
        custom) "$programs/pg_restore" --jobs=2 --dbname="restored_$from" whole.custom ;;
        directory) "$programs/pg_restore" --jobs=2 --dbname="restored_$from" whole.directory ;;
        tar) "$programs/pg_restore" --single-transaction --dbname="restored_$from" whole.tar ;;
        plain) "$programs/psql" -Xq --set=ON_ERROR_STOP=1 --dbname="restored_$from" \
            --file="$PGDATABASE.content" >/dev/null ;;
    esac
    content "restored_$from"
    "$programs/psql" -Xq -c "DROP DATABASE restored_$from WITH (FORCE)"
done
"$programs/pg_dumpall" --globals-only --no-role-passwords | grep -vE '^--|restrict' | sha256sum
