"Published tables: their numbers, what is at hand, what is compared"
import math, sys
from pathlib import Path

import numpy as np, pytest, vrlit as vr
from conftest import SHARED, forked, some_pictures

def command_line(*args):
    sys.argv = ['vrlit', *args]
    from vrlit.cli import app
    app()

@pytest.mark.parametrize('name', list(vr.list_tables()))
def test_files(name):
    "Every grid can be read, and every number is a number"
    told = vr.published_table(name)
    assert all(told[k] for k in ('title', 'paper', 'link', 'grid')) and told['epoch'] in ('last', 'test_best')
    numbers = vr.published_numbers(told)
    assert all(0 < mean < 100 and not std > 5 for mean, std in numbers.values())
    tasks = told['grid']['task'] if isinstance(told['grid']['task'], dict) else [told['grid']['task']]
    assert set(told['splits']) <= set(tasks) and {col for _, _, col in numbers} <= {*tasks, 'average'}
    grid = dict(told['words'], grid={k: v for k, v in told['grid'].items() if k != 'task'}, task='digits', when=[r for r in told['when'] if 'task' not in r])
    plan = vr.read_grid(grid)
    names = lambda run: ', '.join(run.names.get(axis, '') for axis in told['rows'].split(','))
    sources = {run.names.get('source', run.words['source']) for run in plan.runs}
    assert {row for _, row, _ in numbers} <= {names(run) for run in plan.runs} and {s for s, _, _ in numbers} <= sources
    for row in {row for _, row, _ in numbers}: # averages are those of the cells
        for source in sources:
            cells = [v[0] for (s, r, c), v in numbers.items() if (s, r) == (source, row) and c != 'average']
            if len(cells) == 11 and (source, row, 'average') in numbers: assert np.mean(cells) == pytest.approx(numbers[source, row, 'average'][0], abs=.06)

def test_some_numbers():
    "As the papers print them"
    first, ten = (vr.published_numbers(vr.published_table(name)) for name in ('smm-table1', 'smm-table10'))
    assert first['resnet18', 'SMM', 'svhn'] == (84.4, 2.) and first['resnet50', 'Pad', 'gtsrb'] == (52.5, 1.4) and first['resnet18', 'Full', 'average'][0] == 46.85
    assert ten['resnet18', 'Full, RLM', 'sun397'][0] == 1.05 and ('resnet18', 'Full, FLM', 'sun397') not in ten

def test_nothing_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'hub'))
    done = vr.reproduce('smm-table1', root=tmp_path, weights=tmp_path)
    assert done.grid is None and done.pairs() == [] and len(done.missing) == 13 and 'nothing of it can be run here; --scale small' in str(done)
    code, out, err = forked(command_line, 'reproduce', 'dvp', '--root', str(tmp_path), '--dry-run', env=dict(TORCH_HOME=str(tmp_path)))
    assert code == 0 and 'weights of clip/ViT-B-16' in out and 'fgvc_aircraft' in out, err
    for args, told in {('reproduce', 'smm-table9'): 'name: expected', ('reproduce', 'dvp', '--scale', 'small'): 'only smm-table1, smm-table3 have a small one'}.items():
        code, out, err = forked(command_line, *args)
        assert code == 2 and told in err, (args, err)

def test_what_is_at_hand_is_run(tmp_path):
    "One of eleven tasks, and weights of the right shape in a folder: that part of the table"
    from torchvision.models import resnet18
    from safetensors.torch import save_file
    save_file(resnet18().state_dict(), tmp_path / 'resnet18-random.safetensors')
    some_pictures(tmp_path / 'svhn_as_a_folder')
    told = vr.published_table('smm-table1')
    (tmp_path / 'root').mkdir()
    dry = vr.reproduce('smm-table1', root=tmp_path / 'root', weights=tmp_path, dry_run=True)
    assert [m.name for m in dry.missing if m.axis == 'source'] == ['resnet50'] and dry.grid is None # no task
    assert len(told['grid']['task']) == len([m for m in dry.missing if m.axis == 'task'])

def test_without_descriptions_nothing_else_is_run(tmp_path, monkeypatch):
    "A method that needs texts is left out where they are not there; it does not run on other texts"
    some_pictures(tmp_path / 'dtd_of_ones_own')
    for name, left in dict(attrvr={'VP', 'AR'}, dvp=set()).items():
        told = vr.published_table(name)
        told['grid']['task'] = {'dtd': 'digits'} # which is there
        told['words'] = dict(told['words'], source='embedded', weights='none')
        monkeypatch.setattr('vrlit.reproduction.published_table', lambda _, told=told: told)
        done = vr.reproduce(name, root=tmp_path, weights=tmp_path, db=tmp_path / 'x.db', dry_run=True, shots=2)
        assert any(m.axis == 'texts' and 'dtd_des.json' in m.why for m in done.missing)
        assert {run['names']['prompt'] for run in done.grid.runs} == left if left else done.grid is None

def test_pairs():
    "Difference and error by hand, and averages over the same columns only"
    told = dict(vr.published_table('smm-table1'), **{'for': {'lite': 'resnet18'}})
    axes = dict(seed=['0', '1', '2'], source=['lite'], task=['cifar10', 'svhn'], prompt=['Full', 'SMM'])
    accuracy = lambda p, t, s: .5 + .1 * (p == 'SMM') + .2 * (t == 'svhn') + .01 * s
    runs = [dict(state='done', key='', names=dict(seed=str(s), source='lite', task=t, prompt=p), result=dict(test_best_test_acc=accuracy(p, t, s), test_acc=0., diverged=None, seconds=1., epochs=1))
            for s in range(3) for t in axes['task'] for p in axes['prompt']]
    done = vr.Reproduction('smm-table1', 'paper', told, [], vr.Grid(vr.Plan('t', axes), Path('t.db'), runs))
    pairs = {(p['row'], p['col']): p for p in done.pairs()}
    cell = pairs['SMM', 'svhn']
    assert (cell['paper'], cell['paper_std'], cell['seeds']) == (84.4, 2., 3)
    assert cell['here'] == pytest.approx(81) and cell['here_std'] == pytest.approx(1)
    assert cell['difference'] == pytest.approx(81 - 84.4) and cell['error'] == pytest.approx(math.sqrt(1 / 3 + 4 / 3))
    assert vr.compared_rows(told, done.grid.rows) == done.pairs()
    mean = pairs['Full', 'average']
    assert mean['paper'] == pytest.approx((68.9 + 78.3) / 2) and mean['here'] == pytest.approx(61)
    assert '84.4±2.0' in str(done) and '-3.4±1.3' in str(done)

@pytest.mark.skipif(not SHARED, reason='needs real weights and data')
def test_small_scale_with_real_sources():
    done = vr.reproduce('smm-table1', 'small', root=f'{SHARED}/datasets', weights=f'{SHARED}/weights', db='nowhere.db', dry_run=True)
    assert not done.missing and len(done.grid.plan.runs) == 120 and done.seconds > 60
    text = str(done)
    assert 'EfficientNet-Lite0 stands for resnet18' in text and 'ten of its textures' in text and 'digits' not in text.split('waiting')[0].split('AT A SMALL')[1]

def test_small_scale_without_anything(tmp_path):
    "The embedded source and digits, on the command line, stopped and gone on with"
    args = 'reproduce', 'smm-table3', '--scale', 'small', '--root', str(tmp_path), '--weights', str(tmp_path), '--db', str(tmp_path / 'g.db'), '--workers', '0', '--set', 'epochs=1', '--set', 'at_most=[40, 20, 20]'
    code, out, err = forked(command_line, *args, '--minutes', '0')
    assert code == 75 and 'MobileNetV1 0.25 stands for resnet18' in out, err
    code, out, err = forked(command_line, *args)
    assert code == 0 and '12 done' in out and 'only f_mask' in out, err
    assert 'source EfficientNet-Lite0: tf_efficientnet_lite0_in1k' in out
