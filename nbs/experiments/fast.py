"""What faster ways to train cost in accuracy: half precision, another layout, and fewer passes for the mapping.

    python nbs/experiments/fast.py DATA

makes the rows of fast_costs.csv that are missing, and may be stopped and started again; 77_fast.ipynb reads them. DATA has the zip and the array of TASKS below.
Every draw takes 500 images for training, 100 for validation and 500 for the test; a full watermark on the embedded source at 96 pixels, ten epochs, which differ in one setting.
"""
import sys
from pathlib import Path

import torch
from rows import make

import vrlit as vr

COSTS = Path(__file__).with_name('fast_costs.csv')
COLUMNS = 'task mapping way seed val test last seconds first_loss last_loss'.split()
TASKS = {'digits': 'digits', 'cifar10': 'cifar10_10ktrain_10ktest_jpg.zip', 'gtsrb': 'gtsrb_4300train_4300test_32px.npz'}
MAPPINGS = {'ILM': vr.ILM, 'BLM': vr.BLM, 'discriminant': vr.Discriminant}
WAYS = {'as loaded': dict(layout='loaded'), 'folded, channels_last': dict(), 'bf16': dict(precision='bf16'), 'bf16, counted and tested so': dict(precision='bf16', eval_precision='bf16'),
        'map_fast': dict(map_fast=True), 'map_every=2': dict(map_every=2), 'map_every=5': dict(map_every=5), 'map_memory=.5': dict(map_memory=.5), 'map_memory=.9': dict(map_memory=.9),
        'map_fast, map_memory=.5': dict(map_fast=True, map_memory=.5)}
SEEDS = range(3)

def load(data, name, seed):
    task = vr.load_task(name if TASKS[name] == name else data / TASKS[name], val=None, seed=seed)
    g = torch.Generator().manual_seed(seed)
    some = lambda split, n: split[torch.randperm(len(split), generator=g)[:n]]
    return vr.make_task(name, some(task.train, 600), some(task.test, 500), task.labels, val=1 / 6, seed=seed)

def cost(data, task, mapping, way, seed):
    source, target = vr.load_source('embedded'), load(data, task, seed)
    model = vr.Reprogrammed(vr.Watermark(source), source, MAPPINGS[mapping](source.S, target.K))
    result = vr.fit(model, target, epochs=10, batch_size=32, lr=.01, seed=seed, device='cpu', progress=False, **WAYS[way])
    told = dict(val=result.selected['val_acc'], test=result.selected['test_acc'], last=result.last['test_acc'])
    return dict(task=task, mapping=mapping, way=way, seed=seed, **{k: round(v, 4) for k, v in told.items()}, seconds=round(sum(r['seconds'] for r in result.log[1:]), 2),
                first_loss=round(result.losses[0], 6), last_loss=round(result.last['loss'], 4))

if __name__ == '__main__':
    if len(sys.argv) != 2: sys.exit(__doc__)
    wanted = ((task, mapping, way, seed) for seed in SEEDS for task in TASKS for mapping in MAPPINGS for way in WAYS)
    make(COSTS, COLUMNS, wanted, lambda rows, *what: cost(Path(sys.argv[1]), *what))
