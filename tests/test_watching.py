"A training that is watched: from another process, in lines and as a table, by TensorBoard"
import os, pty, re, select, subprocess, time

import pytest, vrlit as vr
from conftest import some_pictures
from test_checkpoints import TRAIN, same
from test_cli import command, vrlit

@pytest.fixture
def folder(tmp_path):
    some_pictures(tmp_path / 'pile')
    return tmp_path

LONG = [a if a != 6 else 60 for a in TRAIN if a not in ('--control', 'random')]

def test_watch_in_lines_and_in_a_terminal(folder):
    "Both while it runs, and the training is the same as one that nobody watches"
    job = subprocess.Popen(**command(*LONG, '--out', 'run', cwd=folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (folder / '.run.lock').exists(): time.sleep(.05)
    lines = subprocess.Popen(**command('watch', 'run', '--every', .1, cwd=folder), stdout=subprocess.PIPE)
    there, here = pty.openpty()
    table = subprocess.Popen(**command('watch', 'run', '--every', .1, cwd=folder, TERM='xterm', COLUMNS='120'), stdout=here)
    os.close(here)
    drawn = b''
    while table.poll() is None or select.select([there], [], [], .1)[0]:
        if not select.select([there], [], [], .1)[0]: continue
        try: drawn += os.read(there, 65536)
        except OSError: break
    told = lines.communicate(timeout=60)[0].splitlines()
    assert job.wait() == lines.returncode == table.wait() == 0
    assert [re.match(r'epoch (\d+),', line)[1] for line in told[:-1]] == [str(e) for e in range(61)] and told[-1] == '60 of 60 epochs, finished'
    text = drawn.decode()
    assert 'BLMPlus(topk=1) . Padding' in text and '60 of 60 epochs' in text and 'running' in text and 'finished' in text and text.count('\x1b[') > 20
    vrlit(*LONG, '--out', 'alone', cwd=folder)
    assert same(folder / 'run', folder / 'alone')

def test_what_cannot_be_watched(folder):
    assert 'run: expected the folder of a training, with checkpoints in it, got pile' in vrlit('watch', 'pile', cwd=folder, code=2)[1]
    vrlit(*TRAIN, '--out', 'run', cwd=folder)
    log = folder / 'run' / 'log.csv'
    log.write_text(log.read_text()[:-20]) # a line that is half written
    assert vr.read_watched(folder / 'run').done == 5 and vrlit('watch', 'run', cwd=folder)[0].endswith('5 of 6 epochs, stopped; --resume goes on\n')

def test_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    def rows(run): return {tag: [(e.step, round(e.value, 5)) for e in told.Scalars(tag)] for told in [EventAccumulator(str(folder / run / 'tensorboard')).Reload()] for tag in told.Tags()['scalars'] if tag != 'seconds'}
    job = subprocess.Popen(**command(*LONG, '--out', 'run', '--tensorboard', cwd=folder, PYTHONUNBUFFERED='1'), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for line in job.stdout:
        if line.startswith('epoch 3,'): break
    job.kill(); job.wait()
    vrlit(*LONG, '--out', 'run', '--tensorboard', '--resume', cwd=folder)
    vrlit(*LONG, '--out', 'whole', '--tensorboard', cwd=folder)
    assert rows('run') == rows('whole') and [step for step, _ in rows('run')['test_acc']] == list(range(1, 61))
