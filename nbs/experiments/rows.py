"Rows of a CSV, made one by one: each is kept as soon as it is finished, and none is made twice."
import csv, os
from collections.abc import Callable, Iterable
from pathlib import Path

def write(file: Path, rows: list[dict], columns: list[str]) -> None:
    "All rows, to a temporary name first."
    tmp = file.with_suffix('.tmp')
    with tmp.open('w', newline='') as f:
        writer = csv.DictWriter(f, columns, lineterminator='\n')
        writer.writeheader(); writer.writerows(rows)
    os.replace(tmp, file)

def make(file: Path, columns: list[str], wanted: Iterable[tuple], run: Callable[..., dict]) -> None:
    "Add `run(rows, *what)` for each `what` that is wanted, the values of the first columns, where there is no row of it yet."
    rows = list(csv.DictReader(file.open())) if file.exists() else []
    key = lambda values: tuple('' if v is None else str(v) for v in values)
    for what in wanted:
        if any(key(list(r.values())[:len(what)]) == key(what) for r in rows): continue
        rows.append(run(rows, *what))
        print(*rows[-1].values(), flush=True)
        write(file, rows, columns)
