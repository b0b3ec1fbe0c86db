"""What faster ways to train cost in accuracy: half precision, another layout, fewer passes for the mapping; and fewer epochs, by the recipe `fast`.

    python nbs/experiments/fast.py DATA WEIGHTS

makes the rows of fast_costs.csv, fast_choices.csv, fast_one_pass.csv and fast_recipes.csv that are missing, and may be stopped and started again; 77_fast.ipynb reads them. DATA has the zip and the
array of TASKS below, WEIGHTS the file of SOURCES.

Costs: every draw takes 500 images for training, 100 for validation and 500 for the test; a full watermark on the embedded source at 96 pixels, ten epochs, which differ in one setting.
Choices: what `fast` was chosen by. As the recipes, but tested on 600 other training images, in draws of their own.
Recipes: 300, 100 and 360 images, sources at 64 pixels, the published 200 epochs against 20. A batch of 32 gives 300 images as many steps an epoch as the published 256 give 2,400.
"""
import itertools, sys
from pathlib import Path

import torch
from rows import make

import vrlit as vr

COSTS, CHOICES, ONE_PASS, RECIPES = (Path(__file__).with_name(f'fast_{name}.csv') for name in ('costs', 'choices', 'one_pass', 'recipes'))
COST = 'task mapping way seed val test last seconds first_loss last_loss'.split()
CHOICE = 'task prompt choice seed other last'.split()
RUNGS = 'task source seed chance pixels random OLM discriminant seconds'.split()
RUNS = 'task source prompt recipe seed kept val test epochs seconds ends tests'.split()
TASKS = {'digits': 'digits', 'squares': 'squares', 'cifar10': 'cifar10_10ktrain_10ktest_jpg.zip', 'gtsrb': 'gtsrb_4300train_4300test_32px.npz'}
LARGER = 'gtsrb, 2,000'
TASKS[LARGER] = TASKS['gtsrb']
MAPPINGS = {'ILM': vr.ILM, 'BLM': vr.BLM, 'discriminant': vr.Discriminant}
WAYS = {'as loaded': dict(layout='loaded'), 'folded, channels_last': dict(), 'bf16': dict(precision='bf16'), 'bf16, counted and tested so': dict(precision='bf16', eval_precision='bf16'),
        'map_fast': dict(map_fast=True), 'map_every=2': dict(map_every=2), 'map_every=5': dict(map_every=5), 'map_memory=.5': dict(map_memory=.5), 'map_memory=.9': dict(map_memory=.9),
        'map_fast, map_memory=.5': dict(map_fast=True, map_memory=.5)}
COSTLY, SHORTENED = ('digits', 'cifar10', 'gtsrb'), ('digits', 'squares', 'gtsrb')
SEEDS = range(3)

def load(data, name, seed, n=600, n_test=500, val=1 / 6):
    task = vr.load_task(name if TASKS[name] == name else data / TASKS[name], val=None, seed=seed)
    g = torch.Generator().manual_seed(seed)
    some = lambda split, n: split[torch.randperm(len(split), generator=g)[:n]]
    return vr.make_task(name, some(task.train, n), some(task.test, n_test), task.labels, val=val, seed=seed)

def cost(data, task, mapping, way, seed):
    source, target = vr.load_source('embedded'), load(data, task, seed)
    model = vr.Reprogrammed(vr.Watermark(source), source, MAPPINGS[mapping](source.S, target.K))
    result = vr.fit(model, target, epochs=10, batch_size=32, lr=.01, seed=seed, device='cpu', progress=False, **WAYS[way])
    told = dict(val=result.selected['val_acc'], test=result.selected['test_acc'], last=result.last['test_acc'])
    return dict(task=task, mapping=mapping, way=way, seed=seed, **{k: round(v, 4) for k, v in told.items()}, seconds=round(sum(r['seconds'] for r in result.log[1:]), 2),
                first_loss=round(result.losses[0], 6), last_loss=round(result.last['loss'], 4))

FEW = dict(n=400, n_test=360, val=1 / 4)
SIZES = {LARGER: dict(n=2400, n_test=360, val=1 / 6)} # of the others: FEW
SOURCES = {'embedded': None, 'tf_efficientnet_lite0': 'tf_efficientnet_lite0_in1k.timm.fp16.safetensors'}
# what differs from the prompt's own recipes: steps for few images, and SMM's crops, which are from 32 pixels more for a source of 224
PROMPTS = {'watermark': (vr.Watermark, 'blm', '+4'), 'SMM': (vr.SMM, 'resnet', '+9'), 'border': (vr.Padding, 'resnet', None)}
TWICE = 'fast, batch_size=16' # twice as large, half of the published
NO_CROPS = 'clean, no crops' # a control: what `fast` owes to these alone

def source_of(weights, name):
    return vr.load_source(name, weights / SOURCES[name] if SOURCES[name] else True, size=64)

def one_pass(data, weights, task, source, seed):
    "What the ladder's first rungs give, and the seconds of the discriminant's"
    rows = vr.ladder(load(data, task, seed, **SIZES.get(task, FEW)), source_of(weights, source), seed=seed, device='cpu', progress=False).rows
    rung = lambda method, control=False: next(r for r in rows if (r['method'], r['control']) == (method, control))
    found = dict(chance=rung('chance', True), pixels=rung('pixels, discriminant', True), random=rung('discriminant', True), OLM=rung('OLM'), discriminant=rung('discriminant'))
    return dict(task=task, source=source, seed=seed, **{k: round(r['test'], 4) for k, r in found.items()}, seconds=round(found['discriminant']['seconds'], 2))

def settings(prompt, recipe):
    kind, name, crops = PROMPTS[prompt]
    kept = kind.recipes[f'{recipe.split(",")[0]}-{name}']
    augment = crops if recipe in ('paper', 'clean') else None
    return kept | dict(batch_size=kept['batch_size'] // (4 if recipe == TWICE else 8), augment=augment)

def train(source, prompt, task, told, seed):
    own = dict(seed=seed) if prompt == 'SMM' else {}
    model = vr.Reprogrammed(PROMPTS[prompt][0](source, **own), source, vr.ILM(source.S, task.K))
    return vr.fit(model, task, **told, seed=seed, device='cpu', progress=False)

TRIED = {'watermark': {'fast': {}, 'lr=.03': dict(lr=.03), 'crops': dict(augment='+4'), 'map_memory=0': dict(map_memory=0.), 'batch_size=16': dict(batch_size=16),
                       'batch_size=32': dict(batch_size=32), 'published schedule': dict(schedule='multistep', warmup=0)},
         'SMM': {'fast': {}, 'lr=.03': dict(lr=.03), 'lr=.1': dict(lr=.1)}, 'border': {'fast': {}, 'lr=.03': dict(lr=.03), 'lr=.01': dict(lr=.01)}}

def choice(data, task, prompt, tried, seed):
    "Tested on 600 other training images"
    sizes = SIZES.get(task, FEW)
    n = sizes['n']
    whole = vr.load_task(task if TASKS[task] == task else data / TASKS[task], val=None, seed=seed)
    order = torch.randperm(len(whole.train), generator=torch.Generator().manual_seed(seed))
    target = vr.make_task(task, whole.train[order[:n]], whole.train[order[n:n + 600]], whole.labels, val=sizes['val'], seed=seed)
    result = train(vr.load_source(size=64), prompt, target, settings(prompt, 'fast') | TRIED[prompt][tried], seed)
    return dict(task=task, prompt=prompt, choice=tried, seed=seed, other=round(result.selected['test_acc'], 4), last=round(result.last['test_acc'], 4))

def by_recipe(data, weights, task, source, prompt, recipe, seed):
    target, told = load(data, task, seed, **SIZES.get(task, FEW)), settings(prompt, recipe)
    result = train(source_of(weights, source), prompt, target, told, seed)
    kept = result.last if told['keep'] == 'last' else result.selected
    at = [round(i * result.epochs / 20) for i in range(21)]
    ends = [sum(r['seconds'] for r in result.log[:i + 1]) for i in at]
    listed = lambda values, n: ' '.join(f'{v:.{n}f}' for v in values)
    return dict(task=task, source=source, prompt=prompt, recipe=recipe, seed=seed, kept=kept['epoch'], val=round(kept['val_acc'], 4), test=round(kept['test_acc'], 4), epochs=result.epochs, seconds=round(ends[-1], 2),
                ends=listed(ends, 2), tests=listed((result.log[i]['test_acc'] for i in at), 4))

def wanted():
    "(task, source, prompt, recipe, seed) of the recipes"
    for source, prompt in ('embedded', 'watermark'), ('tf_efficientnet_lite0', 'watermark'), ('embedded', 'SMM'):
        recipes = ['fast', 'clean', 'paper'] + [NO_CROPS] * ((source, prompt) == ('embedded', 'watermark'))
        for seed in SEEDS:
            for task in SHORTENED: yield from ((task, source, prompt, recipe, seed) for recipe in recipes)
    for seed in SEEDS: yield from ((LARGER, 'embedded', 'watermark', recipe, seed) for recipe in ('fast', 'paper', TWICE))

if __name__ == '__main__':
    if len(sys.argv) != 3: sys.exit(__doc__)
    data, weights = map(Path, sys.argv[1:])
    costs = ((task, mapping, way, seed) for seed in SEEDS for task in COSTLY for mapping in MAPPINGS for way in WAYS)
    make(COSTS, COST, costs, lambda rows, *what: cost(data, *what))
    choices = ((task, prompt, tried, seed) for seed in (9, 10, 11) for prompt in TRIED for tried in TRIED[prompt] for task in SHORTENED)
    larger = ((LARGER, 'watermark', tried, seed) for seed in (9, 10, 11) for tried in ('fast', 'batch_size=16', 'batch_size=32'))
    make(CHOICES, CHOICE, itertools.chain(choices, larger), lambda rows, *what: choice(data, *what))
    ladders = ((task, source, seed) for source in SOURCES for task in SHORTENED + (LARGER,) * (source == 'embedded') for seed in SEEDS)
    make(ONE_PASS, RUNGS, ladders, lambda rows, *what: one_pass(data, weights, *what))
    make(RECIPES, RUNS, wanted(), lambda rows, *what: by_recipe(data, weights, *what))
