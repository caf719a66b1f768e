#!/usr/bin/env bash
# optuna 5.0.0 and 4.6.0: a study in SQLite keeps its trials' times without a zone. Version 4 writes the machine's local
# time, version 5 writes UTC and reads what is there as UTC. Neither converts the other's rows, and nothing is said.
#
# So outside of UTC an upgrade moves the start and the end of every trial that is there, by hours; and while both versions
# use one file, each reads the other's trials wrongly. Durations stay right, the order of trials of both versions does not,
# and what is counted from `datetime_complete` to now, as a budget of time, is off by the zone.
#
# Seen in the zone EST5 (five hours behind UTC): a trial of version 4 is read by version 5 as begun five hours earlier;
# a trial of version 5 is read by version 4 as begun five hours later; in UTC both agree.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 4.6.0 5.0.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "optuna==$version" sqlalchemy==2.1.9
done
cd "$folder"
cat >trials.py <<'PY'
import sys
from datetime import datetime

import optuna

optuna.logging.set_verbosity(optuna.logging.ERROR)
storage, does = sys.argv[1:]
study = optuna.create_study(storage=storage, study_name="study", load_if_exists=True)
if does == "add":
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
else:
    # How many hours ago the last trial began, by this version.
    print(round((datetime.now() - study.trials[-1].datetime_start).total_seconds() / 3600))
PY
hours() { # zone, version that writes, version that reads
    rm -f study.db
    TZ=$1 "$folder/$2/bin/python" -W ignore trials.py sqlite:///study.db add
    TZ=$1 "$folder/$3/bin/python" -W ignore trials.py sqlite:///study.db read
}
expect() {
    echo "$1, written by $2, read by $3: begun $4 hours ago"
    test "$4" -eq "$5"
}
zone=EST5 # New York's winter time all year
expect $zone 4.6.0 4.6.0 "$(hours $zone 4.6.0 4.6.0)" 0
expect $zone 5.0.0 5.0.0 "$(hours $zone 5.0.0 5.0.0)" 0
expect $zone 4.6.0 5.0.0 "$(hours $zone 4.6.0 5.0.0)" 5
expect $zone 5.0.0 4.6.0 "$(hours $zone 5.0.0 4.6.0)" -5
expect UTC 4.6.0 5.0.0 "$(hours UTC 4.6.0 5.0.0)" 0
