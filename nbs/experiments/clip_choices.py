"""The text that each label of CIFAR-10 chooses by the counts of one pass, before any training: VP + TP (ILM) of clip_table.toml.

    python nbs/experiments/clip_choices.py

writes clip_choices.csv, for each seed of the grid. As for the grid, DATA is a folder with CIFAR-10.
"""
from pathlib import Path

import vrlit as vr

HERE = Path(__file__).parent

def main():
    rows = []
    for run in vr.read_grid(HERE / 'clip_table.toml').runs:
        if (run.names['task'], run.names['method']) != ('cifar10', 'VP + TP (ILM)'): continue
        w = run.words
        task = vr.load_task(w['task'], **w['data'], seed=w['seed'])
        source = vr.build_source(w['source'], texts=w['texts'], labels=task.labels)
        model = vr.Reprogrammed(vr.Watermark(source), source, vr.ILM(source.S, task.K))
        vr.update_mapping(model, task.train)
        chosen = vr.mapped_names(model.mapping, source.labels, 1)
        rows += [dict(seed=w['seed'], label=label, text=text) for label, (text,) in zip(task.labels, chosen)]
    with open(HERE / 'clip_choices.csv', 'w', newline='') as file: vr.write_rows(rows, file)

if __name__ == '__main__': main()
