"Two processes train as one does: to rounding, which is that of double precision here, since Adam makes much of single's"
import json, os, socket, subprocess, sys, time

import pytest, torch, vrlit as vr
from conftest import forks
from safetensors.torch import load_file

pytest.importorskip('accelerate')

WAYS = {'SMM, in training mode, crops': dict(prompt='SMM(patch=4)', mapping='ILM', lr=.01, augment='+4', map_augmented=True, map_training=True),
        'BLM+, from the training pass': dict(prompt='Watermark', mapping='BLMPlus', lr=.03, map_fast=True),
        'linear, weighted': dict(prompt='Padding', mapping='FullyMap', lr=dict(pattern=.03, mapping=.003), class_weight='balanced', clip_grad=.1),
        'moments': dict(prompt='LowRank', mapping='Discriminant', lr=.01)}

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def train(rank, size, port, file, words, how):
    "In a process of its own; the first writes what it found"
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.set_num_threads(1)
    source, task = vr.load_source(size=32), vr.load_task('digits', shots=8) # 80 images: the last batch has 17, which are 9 and 8
    model = vr.build_model({k: words[k] for k in ('prompt', 'mapping')} | dict(source='embedded(size=32)'), task, source).double()
    settings = {k: v for k, v in words.items() if k not in ('prompt', 'mapping')}
    result = vr.fit(model, task, epochs=how.pop('epochs', 3), batch_size=21, layout='loaded', keep='last', device='cpu', progress=False, **settings, **how)
    if not rank: torch.save((result.log, result.losses, model.adapter()), file)

def start(size, file, words, **how):
    port = free_port()
    processes = [forks.Process(target=train, args=(rank, size, port, file, words, dict(how))) for rank in range(size)]
    for p in processes: p.start()
    return processes

def found(size, file, words, **how):
    processes = start(size, file, words, **how)
    for p in processes: p.join(120)
    assert [p.exitcode for p in processes] == [0] * size
    return torch.load(file)

def same(one, other):
    (log, losses, adapter), (log2, losses2, adapter2) = one, other
    assert len(losses) == len(losses2) and max(abs(a - b) for a, b in zip(losses, losses2)) < 1e-9
    for k in adapter: assert torch.allclose(adapter[k].double(), adapter2[k].double(), atol=1e-8), k
    for x, y in zip(log, log2): assert all(x[k] == y[k] for k in ('epoch', 'remapped', 'test_acc', 'val_acc', 'train_acc'))

@pytest.mark.parametrize('words', WAYS.values(), ids=WAYS)
def test_as_one(words, tmp_path): same(found(1, tmp_path / 'one', words), found(2, tmp_path / 'two', words))

def test_three_of_them(tmp_path): same(found(1, tmp_path / 'one', WAYS['moments']), found(3, tmp_path / 'three', WAYS['moments']))

def test_killed_with_two_and_gone_on_with_one(tmp_path):
    "The first process keeps the checkpoints; who goes on may be alone, and ends where two would"
    how = dict(epochs=20, out=str(tmp_path / 'run'), resume=True)
    both = start(2, tmp_path / 'two', WAYS['moments'], **how)
    log, end = tmp_path / 'run' / 'log.csv', time.monotonic() + 90
    while not log.exists() or len(log.read_text().splitlines()) < 4: assert time.monotonic() < end and not time.sleep(.01)
    for p in both: p.kill()
    for p in both: p.join()
    assert not (tmp_path / 'two').exists()
    again = found(1, tmp_path / 'again', WAYS['moments'], **how)
    same(found(1, tmp_path / 'whole', WAYS['moments'], epochs=20), again)
    same(found(2, tmp_path / 'finished', WAYS['moments'], **how), again) # it is finished, and both hear so

def test_accelerate_launches_the_command_line(tmp_path):
    args = 'train digits --source embedded(size=32) --shots 8 --epochs 2 --batch-size 20 --layout loaded --prompt Watermark --mapping ILM --lr .01 --keep last --control random --out'.split()
    device = ['--multi_gpu'] if torch.cuda.device_count() > 1 else ['--cpu']
    launch = ['-m', 'accelerate.commands.launch', *device, '--num_processes', '2', '--num_machines', '1', '--main_process_port', str(free_port())]
    out = {}
    for name, how in dict(one=[], two=launch).items():
        done = subprocess.run([sys.executable, *how, '-m', 'vrlit', *args, name], cwd=tmp_path, env=os.environ | dict(OMP_NUM_THREADS='1'), capture_output=True, text=True, timeout=200)
        assert done.returncode == 0 and done.stdout.count('written to') == 1, done.stderr[-2000:]
        out[name] = json.loads((tmp_path / name / 'result.json').read_text()), load_file(tmp_path / name / 'adapter.safetensors')
    (one, a), (two, b) = out.values()
    losses = lambda told: torch.tensor(told['losses'] + told['controls']['random']['losses'])
    assert (losses(one) - losses(two)).abs().max() < 1e-5
    assert torch.equal(a['mapping.sequence'], b['mapping.sequence']) and torch.allclose(a['prompt.pattern'], b['prompt.pattern'], atol=1e-4)

def test_alone_nothing_is_shared():
    source = vr.load_source(size=32)
    assert vr.world() == (0, 1) and vr.join() == (0, 1) and vr.spread(source.model) is source.model and vr.from_first(source) is source
    for n in range(1, 9):
        for size in range(1, 5): assert [i for r in range(size) for i in range(n)[vr.rows_of(n, r, size)]] == list(range(n))
