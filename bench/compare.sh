#!/usr/bin/env bash
# Compares the Go benchmarks of a revision with those of the working tree. Both
# run by turns, so that what the machine does meanwhile befalls both.
#
#	bench/compare.sh BASE [COUNT]
#
# BENCH is a pattern of the benchmarks to run, BENCHTIME how long each of them runs.
set -euo pipefail
cd "$(dirname "$0")/.."
base=${1:?"usage: bench/compare.sh BASE [COUNT]"} count=${2:-10}
packages=(apikey storage/boltstore caddymodule)
benchstat=golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

work=$(mktemp -d)
git worktree add --quiet --detach "$work/base" "$base"
trap 'git worktree remove --force "$work/base"; rm -rf "$work"' EXIT
ln -s "$PWD" "$work/new"

for package in "${packages[@]}"; do
	for side in base new; do
		[ -d "$work/$side/$package" ] || continue
		(cd "$work/$side/" && go test -c -o "$work/$side-${package//\//-}.test" "./$package") ||
			echo "$package of $side is left out" >&2
	done
done
for ((i = 1; i <= count; i++)); do
	echo "round $i of $count" >&2
	for package in "${packages[@]}"; do
		for side in base new; do
			binary=$work/$side-${package//\//-}.test
			[ -x "$binary" ] || continue
			(cd "$work/$side/$package" && "$binary" -test.run '^$' -test.bench "${BENCH:-.}" -test.benchmem \
				-test.benchtime "${BENCHTIME:-200ms}" -test.count 1) >>"$work/$side.txt"
		done
	done
done
go run "$benchstat" "$base=$work/base.txt" "working tree=$work/new.txt"
