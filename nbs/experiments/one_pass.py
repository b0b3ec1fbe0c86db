"""What one pass over the images gives, and what a prompt adds to it: six tasks, four sources, three draws of each.

    python nbs/experiments/one_pass.py DATA WEIGHTS [SOURCE ...]

makes the rows of one_pass.csv (the ladder), one_pass_prompts.csv and one_pass_longer.csv that are missing, of the sources named or of all, and may be stopped and
started again; 76_one_pass.ipynb reads them. DATA has the zips and arrays of TASKS below, WEIGHTS the files of SOURCES.

Every draw takes up to 1,200 images for training, a sixth of them for validation, and up to 500 for the test. A prompt's learning rate is the best of those tried (of three, at least)
on the validation images of the first draw with the embedded source; other draws and sources take it over.
"""
import csv, sys
from pathlib import Path

import torch
from rows import make, write

import vrlit as vr

FILE = Path(__file__).with_suffix('.csv')
PROMPTED, LONGER = FILE.with_stem('one_pass_prompts'), FILE.with_stem('one_pass_longer')
LADDER = 'task source seed method control val test numbers seconds'.split()
COLUMNS = 'task source prompt mapping seed lr epoch before_val val before test gained lost train trained seconds'.split()
EPOCHS, MANY = 3, 30
SETTINGS = dict(batch_size=32, milestones=(.67,), device='cpu', progress=False)
RATES = dict.fromkeys(('digits', 'squares'), (.01, .03, .1)) # photographs bear less
SEEDS = range(3)

TASKS = {'digits': 'digits', 'squares': 'squares', 'cifar10': 'cifar10_10ktrain_10ktest_jpg.zip', 'dtd': 'dtd_10of47classes_160px.zip',
         'flowers': 'flowers5_128px.zip', 'gtsrb': 'gtsrb_4300train_4300test_32px.npz'}
# name: (file, arguments of load_source)
SOURCES = {'embedded': (None, dict(size=128)),
           'tf_efficientnet_lite0': ('tf_efficientnet_lite0_in1k.timm.fp16.safetensors', dict(size=96)),
           'mobilenetv2_100': ('mobilenetv2_100_tfqat_in1k.timm.fp16.safetensors', dict(size=96, pad_type='same', mean=.5, std=.5)),
           'squeezenet1_0': ('squeezenet1_0_deepcompression_in1k.torchvision.fp16.safetensors', dict(size=96))}
PROMPTS = {'watermark': lambda source, seed: vr.Watermark(source), 'SMM': lambda source, seed: vr.SMM(source, seed=seed)}
MAPPINGS = {'ILM': vr.ILM, 'discriminant': vr.Discriminant}

def load(data, name, seed):
    task = vr.load_task(name if TASKS[name] == name else data / TASKS[name], val=None, seed=seed)
    g = torch.Generator().manual_seed(seed)
    some = lambda split, n: split[torch.randperm(len(split), generator=g)[:n]]
    return vr.make_task(name, some(task.train, 1200), some(task.test, 500), task.labels, val=1 / 6, seed=seed)

def source_of(weights, name):
    file, kwargs = SOURCES[name]
    return vr.load_source(name, weights / file if file else True, **kwargs)

def climb(data, weights, sources):
    "The rows of the ladder"
    rows = list(csv.DictReader(FILE.open())) if FILE.exists() else []
    for seed in SEEDS:
        for name in sources:
            for task in TASKS:
                if any((r['task'], r['source'], r['seed']) == (task, name, str(seed)) for r in rows): continue
                found = vr.ladder(load(data, task, seed), source_of(weights, name), seed=seed, device='cpu', progress=False).rows
                told = lambda r: {k: round(v, 4) if isinstance(v, float) else v for k, v in r.items() if k in LADDER}
                rows += [told(r) | dict(task=task, source=name, seed=seed) for r in found]
                write(FILE, rows, LADDER)
                print(task, name, seed, {r['method']: round(r['test'], 3) for r in found}, flush=True)

def wanted(sources):
    "(task, source, prompt, mapping, seed, learning rate; None: the chosen one)"
    ways = [(task, p, m) for task in TASKS for p in PROMPTS for m in MAPPINGS]
    yield from ((task, 'embedded', p, m, 0, lr) for task, p, m in ways for lr in RATES.get(task, (.001, .003, .01)))
    for seed in SEEDS:
        for name in sources: yield from ((task, name, p, m, seed, None) for task, p, m in ways if (name, seed) != ('embedded', 0))

def chosen(rows, *way):
    "The learning rate with the highest validation accuracy"
    tried = [r for r in rows if (r['task'], r['source'], r['prompt'], r['mapping'], str(r['seed'])) == (way[0], 'embedded', *way[1:], '0')]
    return float(max(tried, key=lambda r: float(r['val']))['lr'])

def longer():
    "The watermark on photographs, many epochs"
    yield from ((task, 'embedded', 'watermark', m, seed, None) for seed in SEEDS for task in TASKS if task not in RATES for m in MAPPINGS)

def run(rows, data, weights, epochs, task, name, prompt, mapping, seed, lr):
    source, target = source_of(weights, name), load(data, task, seed)
    model = vr.Reprogrammed(PROMPTS[prompt](source, seed), source, MAPPINGS[mapping](source.S, target.K))
    hits = lambda: torch.cat([model(x).argmax(1) == y for x, y in vr.batches(target.test, 256)])
    vr.update_mapping(model, target.train)
    with vr.eval_mode(model): before = hits()
    rate = lr or chosen(rows, task, prompt, mapping)
    parts = dict(pattern=rate, mask_generator=rate / 3) if prompt == 'SMM' else rate
    result = vr.fit(model, target, epochs=epochs, lr=parts, seed=seed, **SETTINGS)
    with torch.no_grad(): after = hits()
    first, kept = result.before, result.selected
    accuracies = dict(before_val=first['val_acc'], val=kept['val_acc'], before=first['test_acc'], test=kept['test_acc'], train=result.last['train_acc'])
    return dict(task=task, source=name, prompt=prompt, mapping=mapping, seed=seed, lr=rate, epoch=kept['epoch'], **{k: round(v, 4) for k, v in accuracies.items()},
                gained=int((after & ~before).sum()), lost=int((before & ~after).sum()), trained=sum(p.numel() for p in model.trained().values()),
                seconds=round(sum(r['seconds'] for r in result.log), 1))

if __name__ == '__main__':
    if len(sys.argv) < 3 or not set(sys.argv[3:]) <= set(SOURCES): sys.exit(__doc__)
    data, weights, sources = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or list(SOURCES)
    climb(data, weights, sources)
    read = lambda file: list(csv.DictReader(file.open())) if file.exists() else []
    there = lambda file, what: any((r['task'], r['source'], r['prompt'], r['mapping'], int(r['seed'])) == what for r in read(file))
    new = lambda file, ways: (w for w in ways if w[-1] or not there(file, w[:-1]))
    make(PROMPTED, COLUMNS, new(PROMPTED, wanted(sources)), lambda rows, *what: run(rows, data, weights, EPOCHS, *what))
    if 'embedded' in sources: make(LONGER, COLUMNS, new(LONGER, longer()), lambda rows, *what: run(read(PROMPTED), data, weights, MANY, *what))
