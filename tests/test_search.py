"A search: never by test images, the same across a kill, honest about one pass"
import json, sys, time

import pytest, torch, vrlit as vr
from conftest import forked, forks, some_pictures

optuna = pytest.importorskip('optuna')
HOW = dict(epochs=2, trials=4, device='cpu', progress=False)

def few(): return vr.load_task('digits', at_most=(100, 60, 60))
def source(): return vr.load_source(size=32)
def told(found): return [(t['prompt'], t['mapping'], t['lr'], t['val'], t['epochs'], t['state']) for t in found.trials]

def test_test_labels_change_nothing_but_the_test(tmp_path):
    task = few()
    order = torch.randperm(len(task.test), generator=torch.Generator().manual_seed(0))
    blind = vr.Task(task.name, task.labels, task.train, task.val, vr.Split(task.test.x, task.test.y[order]), task.provenance)
    a, b = vr.auto(task, source(), out=tmp_path / 'a', **HOW), vr.auto(blind, source(), out=tmp_path / 'b', **HOW)
    assert told(a) == told(b) and a.best == b.best
    run = vr.load_run(tmp_path / 'a' / 'best')
    assert vr.evaluate(run.model, task.test).accuracy == a.test
    assert a.best['val'] == max(t['val'] for t in a.trials if t['val'] is not None)

def search(folder): vr.auto(few(), source(), out=folder, **HOW | dict(epochs=30, trials=3))

def test_killed_in_a_trial_it_goes_on_to_the_same_end(tmp_path):
    process = forks.Process(target=search, args=(tmp_path / 'a',))
    process.start()
    log = lambda: [f for f in tmp_path.glob('a/trials/*/log.csv') if len(f.read_text().splitlines()) > 8]
    end = time.monotonic() + 60
    while not log():
        assert time.monotonic() < end and process.is_alive()
        time.sleep(.01)
    process.kill()
    process.join()
    assert [*tmp_path.glob('a/trials/*/checkpoints/*.safetensors')]
    search(tmp_path / 'a')
    search(tmp_path / 'b')
    again, whole = (vr.auto(few(), source(), out=tmp_path / k, **HOW | dict(epochs=30, trials=3)) for k in 'ab')
    assert told(again) == told(whole) and again.test == whole.test

def test_no_time_is_one_pass(tmp_path):
    found = vr.auto(few(), source(), minutes=0, out=tmp_path / 'a', **HOW | dict(trials=None))
    assert found.stopped and found.best['epochs'] == 0 and found.gain == 0 and 'one pass was best' in str(found)
    assert vr.load_run(tmp_path / 'a' / 'best').result.epochs == 0
    assert 'pixels' in str(found) # the control is above it, and said

def test_spaces(tmp_path):
    own = dict(prompt=['Watermark'], mapping=['FLM'], lr=[.01], width=['narrow'])
    found = vr.auto(few(), source(), space=own, out=tmp_path / 'own', **HOW | dict(trials=1))
    assert {(t['prompt'], t['mapping']) for t in found.trials if t['epochs']} == {("Watermark(width='narrow')", 'FLM')}
    paper = vr.auto(few(), source(), space='autovp', out=tmp_path / 'autovp', **HOW | dict(trials=3))
    assert all(t['prompt'].startswith('Scale(inner=') for t in paper.trials if t['epochs'])
    for wrong in (dict(prompt=[]), dict(prompt=['Padding'], mapping=['ILM']), 'wide', 3):
        with pytest.raises((ValueError, TypeError), match='space: '): vr.auto(few(), source(), space=wrong, out=tmp_path / 'x', **HOW)

def test_a_setting_that_cannot_be_built_ends_no_search(tmp_path):
    space = dict(prompt=['Padding(inner=999)'], mapping=['ILM'], lr=[.01])
    found = vr.auto(few(), source(), space=space, out=tmp_path / 'a', **HOW)
    assert found.best['epochs'] == 0 and [t['state'] for t in found.trials].count('fail') == 4

def command_line(*args):
    sys.argv = ['vrlit', *args]
    from vrlit.cli import app
    app()

def test_command_line(tmp_path):
    pile = some_pictures(tmp_path / 'pile')
    args = 'auto', str(pile), '--source', 'embedded(size=32)', '--trials', '1', '--epochs', '1', '--out', str(tmp_path / 'auto')
    code, out, err = forked(command_line, *args)
    assert code == 0 and 'the ladder: one pass' in out and 'best: ' in out, err
    assert json.loads((tmp_path / 'auto' / 'best' / 'config.json').read_text())['task'] == str(pile)
    code, out, err = forked(command_line, 'predict', str(tmp_path / 'auto' / 'best'), str(next(pile.glob('dark/*.png'))))
    assert code == 0 and 'dark' in out, err
    for more, said in {('--epochs', '2'): 'epochs was 1, is 2', ('--val', '0'): 'expected one with validation images', ('--space', 'wide'): 'space: expected'}.items():
        code, out, err = forked(command_line, *args, *more)
        assert code == 2 and said in err, (more, err)
