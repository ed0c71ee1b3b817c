#!/bin/sh
# pgbench in each of its modes, few transactions each. Prints what does not depend on time.
#     pgbench_use.sh FOLDER_OF_PROGRAMS
set -eu
bench() {
    echo "--- $*"
    "$programs/pgbench" "$@" 2>&1 | grep -E 'transaction type|query mode|clients|threads|processed|failed|ERROR|FATAL|error'
}
programs=$1
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
cat >pipeline <<'PIPELINE'
\startpipeline
SELECT 1;
SELECT abalance FROM pgbench_accounts WHERE aid = 1;
UPDATE pgbench_accounts SET abalance = abalance WHERE aid = 1;
\endpipeline
SELECT 2 AS two \gset
\if :two = 2
SELECT 3;
\endif
PIPELINE
"$programs/pgbench" --initialize --quiet --scale=1 2>&1 | grep -E 'ERROR|FATAL|error' || true
for mode in simple extended prepared; do
    bench -n -M "$mode" -S -c 8 -j 2 -t 40
    bench -n -M "$mode" -c 8 -j 2 -t 10
    bench -n -M "$mode" -S -C -c 2 -t 4
done
bench -n -N -t 10
bench -n -M simple -C -c 2 -t 3
bench -n -M prepared -f pipeline -c 2 -t 20
"$programs/pgbench" --initialize --init-steps=dtG --quiet --scale=1 2>&1 | grep -E 'ERROR|FATAL|error' || true
"$programs/psql" -XAt -c 'SELECT count(*), sum(abalance) FROM pgbench_accounts'
