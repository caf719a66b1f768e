#!/usr/bin/env bash
# optuna 5.0.0: the parents of a generation have one order when a genetic sampler is first asked in that generation,
# and another order each time after. The first call gathers them front by front and stores their ids in
# the study. Later calls read the ids back and go through the trials by their number. The sampler draws parents by
# their place, so the same seed on the same trials proposes something else.
#
# So the proposal of a seed depends on whether anyone has asked before. A process that died between asking and telling
# and asks again with the seed of that trial gets other values, and so does a second worker with the first one's seed.
# A program that wants the same proposal each time calls `get_parent_population` once before it asks.
#
# Seen with NSGAIISampler, ten trials of two objectives, in memory and in SQLite: [0, 1, 2, 5, 7, 8, 9, 3, 4, 6], then
# the same ten in the order of their numbers; three new samplers of one seed propose A, B, B.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check optuna==5.0.0 sqlalchemy==2.1.9
cd "$folder"
cat >parents.py <<'PY'
import sys

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
space = {f"x{number}": optuna.distributions.IntDistribution(0, 99) for number in range(4)}


def sampler(seed):
    return optuna.samplers.NSGAIISampler(population_size=10, seed=seed)


def first_generation(name):
    study = optuna.create_study(
        storage=sys.argv[1] or None, study_name=name, directions=["minimize", "minimize"], sampler=sampler(0)
    )
    for _ in range(10):
        trial = study.ask(space)
        values = trial.params.values()
        study.tell(trial, [sum(values), sum((99 - value) ** 2 for value in values)])
    return study


study = first_generation("orders")
orders = [[trial.number for trial in sampler(7).get_parent_population(study, 1)] for _ in range(3)]
print("parents:", *orders, sep="\n  ")
assert sorted(orders[0]) == orders[1] == orders[2] != orders[0]

study = first_generation("proposals")
asked = []
for _ in range(3):
    study.sampler = sampler(7)
    asked.append(study.ask(space).params)
print("proposals of one seed:", *asked, sep="\n  ")
assert asked[0] != asked[1] == asked[2]
PY
for storage in "" sqlite:///study.db; do
    echo "storage: ${storage:-memory}"
    venv/bin/python -W ignore parents.py "$storage"
done
echo "as described"
