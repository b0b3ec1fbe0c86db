"""CLIP's methods on the miniature vision-language source: a row of clip.csv for each, kept as soon as it is finished.

    python nbs/experiments/clip.py [CIFAR10]

makes the rows that are missing, and may be stopped and started again; 73_clip.ipynb reads them. CIFAR10 is a folder or zip of train/ and test/, each with a folder of images per
class; without it there are digits alone. 16 training images per label, drawn by the seed. First each method's learning rate is chosen: half as many epochs, one seed, the best of
four on the validation images.
"""
import sys
from pathlib import Path

from rows import make, write

import vrlit as vr
from vrlit.tasks import make_task

FILE = Path(__file__).with_suffix('.csv')
SETTINGS = dict(epochs=20, batch_size=16, optimizer='sgd', momentum=.9, schedule='cosine', device='cpu', progress=False)
RATES = .1, 1., 10., 40. # 40 is published

border = lambda source: vr.Watermark(source, round(30 / 224 * source.size)) # ILM-VP
frame = lambda source: vr.Padding(source, round(192 / 224 * source.size)) # AttrVR, DVP
single = lambda clip, task: vr.TextSource(clip, vr.label_texts(task.labels), task.labels)
ensemble = lambda clip, task: vr.TextSource(clip, vr.label_texts(task.labels, vr.ensemble_templates()), task.labels)
templates = lambda clip, task: vr.TextSource(clip, vr.text_prompts(task.labels))
described = lambda clip, task: vr.TextSource(clip, vr.attribute_texts(*vr.example_attributes(task.name), labels=task.labels))
def decoupled(V):
    "All descriptions of a label, in V groups"
    def source(clip, task):
        des, dist = vr.example_attributes(task.name)
        return vr.DecoupledSource(clip, vr.attribute_texts({k: des[k] + dist[k] for k in des}, labels=task.labels), V)
    return source

# name: (source from CLIP and task, prompt from the source, mapping, arguments of fit); digits have three descriptions of a kind, CIFAR-10 eight
best = lambda S, K: vr.AttrVR(S, K, k=3 if S // K >= 16 else 2)
TABLE = {
    'zero-shot, 1 template': (single, None, vr.OneToOne, {}),
    'zero-shot, 80 templates': (ensemble, None, vr.OneToOne, {}),
    'zero-shot, attributes': (described, None, best, {}),
    'TP (ILM)': (templates, None, vr.ILM, {}),
    'TP (BLM+)': (templates, None, vr.BLMPlus, {}),
    'TP (discriminant)': (templates, None, vr.Discriminant, {}),
    'attributes (discriminant)': (described, None, vr.Discriminant, {}),
    'VP': (single, border, vr.OneToOne, {}),
    'VP + TP (FLM)': (templates, border, vr.FLM, {}),
    'VP + TP (ILM)': (templates, border, vr.ILM, {}),
    'VP + TP (OLM)': (templates, border, vr.OLM, {}),
    'VP + TP (BLM+)': (templates, border, vr.BLMPlus, {}),
    'VP, padding': (single, frame, vr.OneToOne, {}),
    'AttrVR': (described, frame, best, {}),
    'DVP, V = 1': (decoupled(1), lambda s: vr.Decoupled(frame(s), 1), vr.PRM, dict(map_fast=True)),
    'DVP, V = 3': (decoupled(3), lambda s: vr.Decoupled(frame(s), 3), vr.PRM, dict(map_fast=True))}
TRAINED = [k for k, (_, prompt, _, _) in TABLE.items() if prompt]

def wanted(photographs):
    "(kind, task, method, seed, choice) of each row"
    for task in ['cifar10', 'digits'] if photographs else ['digits']:
        yield from (('untrained', task, m, s, None) for m in TABLE if m not in TRAINED for s in range(1 if m.startswith('zero-shot') else 3))
        yield from (('choice', task, m, 0, i) for m in TRAINED for i in range(len(RATES)))
        yield from (('table', task, m, s, None) for s in range(3) for m in TRAINED)

def load(task, photographs, seed):
    "16 training images per label; of CIFAR-10 500 validation and 1,000 test images"
    if task == 'digits': return vr.load_task(task, shots=16, seed=seed)
    all_ = vr.load_task(photographs)
    few = make_task('cifar10', all_.train, all_.test[range(0, len(all_.test), len(all_.test) // 1000)], all_.labels, val=500 / len(all_.train))
    return few.few_shot(16, seed)

def run(rows, photographs, kind, task, name, seed, choice):
    build, prompt, mapping, arguments = TABLE[name]
    target = load(task, photographs, seed)
    source = build(vr.load_clip(), target)
    model = vr.Reprogrammed(prompt(source) if prompt else vr.Resized(source), source, mapping(source.S, target.K))
    row = dict(kind=kind, task=task, method=name, seed=seed, choice=choice, texts=source.S)
    if kind == 'untrained':
        vr.update_mapping(model, target.train)
        return row | dict(selected=round(vr.evaluate(model, target.test).accuracy, 4))
    if choice is None: # the best on the validation images
        tried = [float(r['val']) for r in rows if (r['kind'], r['task'], r['method']) == ('choice', task, name)]
        choice, epochs = tried.index(max(tried)), SETTINGS['epochs']
    else: epochs = SETTINGS['epochs'] // 2
    result = vr.fit(model, target, seed=seed, **SETTINGS | arguments | dict(lr=RATES[choice], epochs=epochs))
    return row | dict(lr=RATES[choice], trained=sum(p.numel() for p in model.trained().values()), train=round(result.last['train_acc'], 4), val=round(result.selected['val_acc'], 4),
                      **{k: round(getattr(result, k)['test_acc'], 4) for k in ('selected', 'last', 'test_best')},
                      remapped=round(sum(r['remapped'] for r in result.log[2:]) / target.K / max(result.epochs - 1, 1), 4), seconds=round(sum(r['seconds'] for r in result.log), 1))

def choices(photographs):
    "The text that each target label of the photographs chooses before any training, by seed"
    clip, rows = vr.load_clip(), []
    for seed in range(3):
        target = load('cifar10', photographs, seed)
        source = templates(clip, target)
        model = vr.Reprogrammed(vr.Watermark(source), source, vr.ILM(source.S, target.K))
        vr.update_mapping(model, target.train)
        rows += [dict(seed=seed, label=label, text=text) for label, (text,) in zip(target.labels, vr.mapped_names(model.mapping, source.labels, 1))]
    write(FILE.with_name('clip_choices.csv'), rows, list(rows[0]))

COLUMNS = 'kind task method seed choice texts lr trained train val selected last test_best remapped seconds'.split()

def main(photographs=None):
    make(FILE, COLUMNS, wanted(photographs), lambda rows, *what: run(rows, photographs, *what))
    if photographs: choices(photographs)

if __name__ == '__main__': main(*sys.argv[1:])
