"""What the source calls the photographs, before any training: the label counts of mappings_photographs.toml's images.

    python nbs/experiments/mappings_counts.py

writes mappings_counts.csv, the counts that are not 0, with names. As for the grid, DATA is a folder with the task's zip.
"""
from pathlib import Path

import vrlit as vr

HERE = Path(__file__).parent

def main():
    run = vr.read_grid(HERE / 'mappings_photographs.toml').runs[0]
    task = vr.load_task(run.words['task'], **run.words['data'])
    source = vr.load_source()
    counts = vr.label_counts(vr.Reprogrammed(vr.Watermark(source), source, vr.FLM(source.S, task.K)), task.train)
    rows = [dict(s=s, source=source.labels[s], t=t, target=task.labels[t], n=int(counts[s, t])) for s, t in counts.nonzero().tolist()]
    with open(HERE / 'mappings_counts.csv', 'w', newline='') as file: vr.write_rows(rows, file)

if __name__ == '__main__': main()
