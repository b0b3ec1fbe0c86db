"Tasks that are no images, and real targets: trained, interrupted, kept, compared; and what is refused"
import csv
from pathlib import Path

import pytest, torch, vrlit as vr
from torch import nn

ROWS = Path(__file__).resolve().parents[1] / 'nbs' / 'gallery'
HOW = dict(epochs=4, batch_size=16, lr=.05, progress=False, device='cpu')

def source(S=6):
    "Of series of 40 values"
    torch.manual_seed(0)
    return vr.load_source(nn.Sequential(nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, S)), shape=(40,))

def task(real=False):
    g = torch.Generator().manual_seed(1)
    x, w = torch.randn(160, 10, generator=g), torch.randn(10, generator=g)
    return vr.make_task('t', (x, x @ w if real else (x @ w > 0).long()), kind='tensors', real=real)

def model(real=False):
    f_pre = source()
    return vr.Reprogrammed(vr.SeriesPrompt(f_pre, 10, 2), f_pre, vr.FullyMap(6, 1 if real else 2))

@pytest.mark.parametrize('real', [False, True])
def test_an_interrupted_training_goes_on_to_the_bit(real, tmp_path):
    whole, want = model(real), vr.fit(model_ := model(real), task(real), **HOW, out=tmp_path / 'whole')
    def stop(row, _):
        if row['epoch'] == 2: raise KeyboardInterrupt
    with pytest.warns(UserWarning, match='interrupted after 2 of 4'): vr.fit(whole, task(real), **HOW, out=tmp_path / 'cut', callback=stop)
    got = vr.fit(fresh := model(real), task(real), **HOW, out=tmp_path / 'cut', resume=True)
    assert got.losses == want.losses and [r['test_acc'] for r in got.log] == [r['test_acc'] for r in want.log]
    assert all(torch.equal(v, model_.adapter()[k]) for k, v in fresh.adapter().items())

@pytest.mark.parametrize('real', [False, True])
def test_a_run_is_kept_and_read(real, tmp_path):
    t, m = task(real), model(real)
    folder = vr.save_run(tmp_path / 'run', m, t, vr.fit(m, t, **HOW))
    run = vr.load_run(folder, source=source())
    assert torch.equal(run.model(t.test.x), m(t.test.x)) and run.model.real is real and run.model.reading == dict(shape=[10])
    said = vr.predict(run, t.test, progress=False)
    if real: assert [p.values[0] for p in said] == pytest.approx(m(t.test.x)[:, 0].tolist())
    else: assert [p.labels[0] for p in said] == [t.labels[i] for i in m(t.test.x).argmax(1)]
    for wrong in torch.zeros(3, 9), torch.zeros(9):
        with pytest.raises(ValueError, match=r'images: expected tensors of shape \[10\]'): vr.predict(run, wrong, progress=False)

def test_selection_by_a_metric_where_less_is_better():
    r = vr.fit(model(True), task(True), **HOW)
    errors = [row['val_rmse'] for row in r.log]
    assert r.selected is r.log[errors.index(min(errors))] and min(errors) < errors[0]

def test_controls_and_ladder():
    t, m = task(), model()
    done = vr.compare(m, t, **HOW | dict(epochs=15))
    assert {*done.controls} == {'random', 'constant'} and done.result.selected['test_acc'] > done.controls['constant'].selected['test_acc']
    methods = {row['method'] for row in vr.ladder(t, source(), progress=False).rows}
    assert {'numbers, discriminant', 'numbers, logistic regression', 'discriminant', 'linear probe'} <= methods
    with pytest.raises(ValueError, match='this one has real targets'): vr.ladder(task(True), source(), progress=False)

def test_what_does_not_fit_is_refused():
    t, images = task(), vr.load_task('digits').few_shot(2)
    with pytest.raises(TypeError, match='expected a source of images, Sequential takes tensors'): vr.Padding(source())
    with pytest.raises(ValueError, match='no images'): vr.fit(model(), t, **HOW, augment='+4')
    with pytest.raises(ValueError, match='expected the kind of data'): vr.make_task('t', t.train, images.test)
    with pytest.raises(ValueError, match='which have no classes'): vr.fit(model(True), task(True), **HOW, class_weight='balanced')
    with pytest.raises(ValueError, match='unless the loss is cross-entropy'): vr.fit(model(), t, **HOW, loss='focal', label_smoothing=.1)
    with pytest.raises(ValueError, match='expected labels, at|a report counts labels'): vr.report(model(True), task=task(True))
    alone = vr.make_task('alone', t.train, t.test, val=(t.train.x[:4], torch.zeros(4).long()), kind='tensors')
    with pytest.raises(ValueError, match='auc needs validation examples'): vr.fit(model(), alone, **HOW, select='auc')

@pytest.mark.parametrize('loss', ['focal', 'binary', 'mse', lambda z, y: nn.functional.cross_entropy(z, y)])
def test_every_loss_goes_down(loss):
    r = vr.fit(model(), task(), **HOW | dict(epochs=8, loss=loss))
    assert r.log[-1]['loss'] < r.log[1]['loss']

def test_a_set_of_the_archive(tmp_path):
    "As it is unpacked: a label and values on each line"
    (tmp_path / 'Two').mkdir()
    for part in 'TRAIN', 'TEST': (tmp_path / 'Two' / f'Two_{part}.tsv').write_text('-1\t.5\t.25\n1\t1\t2\n' * 10)
    t = vr.load_ucr('Two', tmp_path)
    assert t.labels == ['-1', '1'] and t.shape == (2,) and t.test.y.tolist() == [0, 1] * 10
    for text, told in (('1\t2\tNaN\n-1\t2\t3\n', 'missing'), ('1\t2\n-1\t2\t3\n', 'expected numbers, as many'), ('1\n-1\n', 'got one number')):
        (tmp_path / 'Two' / 'Two_TRAIN.tsv').write_text(text)
        with pytest.raises(ValueError, match=told): vr.load_ucr('Two', tmp_path, val=None)

def test_recordings_in_a_folder(tmp_path):
    import wave
    def write(name, samples=3000, rate=8000):
        with wave.open(str(tmp_path / name), 'wb') as f:
            f.setnchannels(1); f.setsampwidth(2); f.setframerate(rate)
            f.writeframes(torch.randint(-9999, 9999, (samples,), dtype=torch.int16).numpy().tobytes())
    for digit in range(10):
        for take in (0, 5): write(f'{digit}_somebody_{take}.wav', samples=3000 + 2000 * digit)
    t = vr.load_fsdd(tmp_path, val=None)
    assert (len(t.train), len(t.test), t.shape) == (10, 10, (16000,)) and t.test.y.tolist() == list(range(10))
    write('3_somebody_7.wav', rate=16000)
    with pytest.raises(ValueError, match='3_somebody_7.wav: expected 8,000 samples'): vr.load_fsdd(tmp_path)

@pytest.mark.parametrize('name, n', [('v2s', 18), ('fsdd', 12)])
def test_rows_are_complete(name, n):
    rows = list(csv.DictReader((ROWS / f'{name}.csv').open()))
    assert len(rows) == n and all(0 <= float(r['test']) <= 1 and float(r['seconds']) > 0 for r in rows)
