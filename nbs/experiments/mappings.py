"""All label mappings under one prompt: a row of mappings.csv for each training, kept as soon as it is finished.

    python nbs/experiments/mappings.py [CIFAR10]

makes the rows that are missing, and may be stopped and started again; 71_mappings.ipynb reads them. CIFAR10 is a folder or zip of train/ and test/, each with a folder of
images per class, for the rows on photographs; without it they are left out. First each mapping's learning rate is chosen: half as many epochs, one seed, the best of three on
the validation images of digits; for photographs on theirs, with FLM for all.
"""
import sys, warnings
from pathlib import Path

from rows import make, write

import vrlit as vr
from vrlit.tasks import make_task

FILE = Path(__file__).with_suffix('.csv')
SETTINGS = dict(epochs=8, batch_size=64, milestones=(.5, .75), device='cpu', progress=False)

under = lambda mapping: lambda source, task, seed: vr.Reprogrammed(vr.Watermark(source), source, mapping(source.S, task.K))
semantic = lambda **kw: lambda source, task, seed: vr.Reprogrammed(vr.Watermark(source), source, vr.SeMap(source.S, task.K, (source.labels, task.labels), **kw))
full = lambda source, task, seed: vr.FullyMap(source.S, task.K, seed=seed)
pattern = [dict(lr=lr) for lr in (.01, .03, .1)]
matrix = [dict(lr=lr) for lr in (.001, .003, .01)]
both = [dict(lr=dict(pattern=lr, mapping=.003)) for lr in (.01, .03, .1)]

# name: (model from source, task and seed; the arguments of fit to choose from)
TABLE = {
    'RLM': (lambda source, task, seed: under(lambda S, K: vr.RLM(S, K, seed=seed))(source, task, seed), pattern),
    'FLM': (under(vr.FLM), pattern),
    'ILM': (under(vr.ILM), pattern),
    'OLM': (under(vr.OLM), pattern),
    'Sinkhorn, 0.02': (under(lambda S, K: vr.Sinkhorn(S, K, .02)), pattern),
    'Sinkhorn, 0.1': (under(lambda S, K: vr.Sinkhorn(S, K, .1)), pattern),
    'Sinkhorn, 1': (under(lambda S, K: vr.Sinkhorn(S, K, 1.)), pattern),
    'BLM': (under(vr.BLM), pattern),
    'BLM+': (under(vr.BLMPlus), pattern),
    'BLM+, k = 10': (under(lambda S, K: vr.BLMPlus(S, K, topk=10)), pattern),
    'ILM (I + E)': (under(lambda S, K: vr.Residual(vr.ILM(S, K))), both),
    'BLM (I + E)': (under(lambda S, K: vr.Residual(vr.BLM(S, K))), both),
    'FullyMap': (lambda source, task, seed: vr.Reprogrammed(vr.Watermark(source), source, full(source, task, seed)), both),
    'no prompt, FullyMap': (lambda source, task, seed: vr.Reprogrammed(vr.Resized(source), source, full(source, task, seed)), matrix),
    'linear probe': (lambda source, task, seed: vr.linear_probe(source, task.K, seed), matrix),
    'full fine-tuning': (lambda source, task, seed: vr.full_finetuning(source, task.K, seed), [dict(lr=lr) for lr in (.0003, .001, .003)])}
small = [dict(lr=lr) for lr in (.0003, .001, .003)]
PHOTOGRAPHS = {k: (TABLE[k][0], small) for k in ('FLM', 'OLM', 'ILM', 'BLM', 'BLM+, k = 10')} | {f'SeMap, {m}': (semantic(per_target=m), small) for m in (1, 3, 10)}
UNTRAINED = [k for k in PHOTOGRAPHS if k != 'ILM'] # it starts as FLM
TRAINED = 'FLM', 'ILM', 'BLM', 'SeMap, 1', 'SeMap, 10', 'linear probe'

def wanted(photographs):
    "(kind, task, mapping, seed, choice) of each row"
    yield from (('choice', 'digits', m, 0, i) for m in TABLE for i in range(3))
    for seed in range(3): yield from (('table', task, m, seed, None) for task in ('digits', 'squares') for m in TABLE)
    if photographs:
        yield from (('untrained', 'cifar10', m, 0, None) for m in UNTRAINED)
        yield from (('choice', 'cifar10', 'FLM', 0, i) for i in range(3))
        for seed in range(3): yield from (('table', 'cifar10', m, seed, None) for m in TRAINED)

def load(task, photographs):
    if task != 'cifar10': return vr.load_task(task)
    all_ = vr.load_task(photographs, shots=200)
    return make_task('cifar10', all_.train, all_.test[range(0, len(all_.test), 5)], all_.labels, val=.1)

def run(rows, photographs, kind, task, name, seed, choice):
    build, choices = ((TABLE | PHOTOGRAPHS) if task == 'cifar10' else TABLE)[name]
    source, target = vr.load_source(), load(task, photographs)
    model, row = build(source, target, seed), dict(kind=kind, task=task, mapping=name, seed=seed, choice=choice)
    if kind == 'untrained':
        vr.update_mapping(model, target.train)
        return row | dict(selected=round(vr.evaluate(model, target.test).accuracy, 4))
    if choice is None: # the best on the validation images
        like = ('choice', 'cifar10', 'FLM') if choices is small else ('choice', 'digits', name)
        tried = [float(r['val']) for r in rows if (r['kind'], r['task'], r['mapping']) == like]
        arguments = choices[tried.index(max(tried))]
    else: arguments = choices[choice] | dict(epochs=SETTINGS['epochs'] // 2)
    result = vr.fit(model, target, seed=seed, **SETTINGS | arguments)
    lr = arguments['lr']['pattern'] if isinstance(arguments['lr'], dict) else arguments['lr']
    return row | dict(lr=lr, trained=sum(p.numel() for p in model.trained().values()), train=round(result.last['train_acc'], 4), val=round(result.selected['val_acc'], 4),
                      **{k: round(getattr(result, k)['test_acc'], 4) for k in ('selected', 'last', 'test_best')},
                      remapped=round(sum(r['remapped'] for r in result.log[2:]) / target.K / max(result.epochs - 1, 1), 4), seconds=round(sum(r['seconds'] for r in result.log), 1))

def count(photographs):
    "The label counts of the photographs before any training, those that are not 0, with names"
    source, target = vr.load_source(), load('cifar10', photographs)
    n = vr.label_counts(vr.Reprogrammed(vr.Watermark(source), source, vr.FLM(source.S, target.K)), target.train)
    s, t = n.nonzero().T.tolist()
    rows = [dict(s=i, source=source.labels[i], t=j, target=target.labels[j], n=int(n[i, j])) for i, j in zip(s, t)]
    write(FILE.with_name('mappings_counts.csv'), rows, list(rows[0]))

COLUMNS = 'kind task mapping seed choice lr trained train val selected last test_best remapped seconds'.split()

def main(photographs=None):
    warnings.filterwarnings('ignore', message='.*source label has anything in common')
    make(FILE, COLUMNS, wanted(photographs), lambda rows, *what: run(rows, photographs, *what))
    if photographs: count(photographs)

if __name__ == '__main__': main(*sys.argv[1:])
