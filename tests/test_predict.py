"A result that can be used: what a run says of new images, in Python and on the command line"
import csv, io, shutil

import numpy as np, pytest, torch, vrlit as vr
from conftest import some_pictures
from PIL import Image
from test_cli import vrlit

@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    "A folder of pictures of all shapes, and a run that was trained on it, cut as CLIP does"
    folder = tmp_path_factory.mktemp('predict')
    some_pictures(folder / 'pile')
    for i in range(10):
        low = 128 * (i % 2)
        Image.fromarray(np.random.default_rng(100 + i).integers(low, 128 + low, (30, 12, 3), dtype=np.uint8)).save(folder / 'pile' / ('dark', 'bright')[i % 2] / f'tall{i}.png')
    vrlit('train', 'pile', '--epochs', 4, '--batch-size', 16, '--lr', .1, '--crop', '--size', 20, '--out', 'run', '-q', cwd=folder)
    return folder

def test_files_folders_pictures_and_arrays_are_read_as_in_training(trained, monkeypatch):
    monkeypatch.setenv('VRLIT_CACHE', str(trained / '.cache'))
    run = vr.load_run(trained / 'run')
    task = run.load_task()
    assert run.model.reading == dict(size=20, mode='bilinear', crop=True)
    files = vr.image_files(trained / 'pile')
    told = vr.predict(run, trained / 'pile', top=2, progress=False)
    assert [p.name for p in told] == [str(f) for f in files] and len(told) == 70
    with torch.no_grad(): want = torch.cat([run.model(torch.stack([vr.read_image(f, 20, crop=True) for f in files]))]).softmax(1)
    assert all(p.labels[0] == run.labels[int(w.argmax())] and abs(p.probabilities[0] - float(w.max())) < 1e-5 and abs(sum(p.probabilities) - 1) < 1e-5 for p, w in zip(told, want))
    assert np.mean([p.labels[0] in p.name for p in told]) > .9
    scored = vr.predict(run.model, task.test)
    assert np.mean([p.labels[0] == task.labels[y] for p, y in zip(scored, task.test.y)]) == pytest.approx(run.result.selected['test_acc'])
    for some in (files, [str(f) for f in files], [Image.open(f) for f in files], [np.asarray(Image.open(f)) for f in files]):
        assert [p[1:] for p in vr.predict(trained / 'run', some, top=2)] == [p[1:] for p in told]
    deep = Image.fromarray(np.full((9, 30), 65535, np.uint16))
    assert vr.predict(run, deep)[0].labels == ['bright'] and len(vr.predict(run, deep, top=99)[0].labels) == 2
    assert vr.predict(run, np.asarray(deep)) == vr.predict(run, deep)
    one = np.asarray(Image.open(files[0]).resize((20, 20))) # as OpenCV's arrays come, flipped and with the channels last
    for some in (one[..., ::-1], one[None, ..., ::-1], (one / 255)[..., ::-1], (one / 255)[None, ..., ::-1].astype('>f4')):
        assert vr.predict(run, some)[0].probabilities[0] == pytest.approx(vr.predict(run, Image.fromarray(one[..., ::-1].copy()))[0].probabilities[0], abs=1e-4)
    for grey in (torch.ones(9, 9), np.ones((9, 9), np.float32), torch.full((9, 9), 255, dtype=torch.uint8), np.full((9, 9), 255, np.uint8)): assert vr.predict(run, grey)[0].labels == ['bright']

@pytest.mark.parametrize('given, kind, said', [
    (3, TypeError, 'images: expected files, folders, pictures, arrays or a batch of images, got int 3'),
    ('nowhere.png', FileNotFoundError, 'nowhere.png'),
    (torch.zeros(2, 4, 8, 8), ValueError, 'images: expected arrays of shape'),
    (np.zeros((5, 8, 8), np.uint8), ValueError, r'images: expected arrays of shape .* got \[5, 8, 8\]'),
    (torch.zeros(2, 3, 8, 8, dtype=torch.int64), ValueError, 'x: expected uint8 pixels'),
    (torch.full((2, 3, 8, 8), 255.), ValueError, r'x: expected floats in \[0, 1\]')], ids=lambda v: v if isinstance(v, str) else '')
def test_what_is_no_image(trained, given, kind, said):
    with pytest.raises(kind, match=said): vr.predict(trained / 'run', given)

def test_other_doors(trained, tmp_path):
    with pytest.raises(TypeError, match='model: expected a model, a run or its folder, got NoneType'): vr.predict(None, tmp_path)
    with pytest.raises(ValueError, match='found none in'): vr.predict(trained / 'run', tmp_path)
    with pytest.raises(ValueError, match='top: expected a whole number'): vr.predict(trained / 'run', trained / 'pile', top=0)
    (tmp_path / 'a.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match='unreadable image file .*a.png'): vr.predict(trained / 'run', tmp_path)

def test_predict_on_the_command_line(trained, tmp_path):
    "From another place, with nothing but the folder of the run"
    shutil.copytree(trained / 'run', tmp_path / 'moved')
    for name in ('dark/0.png', 'bright/1.png'): shutil.copy(trained / 'pile' / name, tmp_path)
    out, _ = vrlit('predict', 'moved', '1.png', '0.png', cwd=tmp_path)
    assert [line.split()[:2] for line in out.splitlines()] == [['1.png:', 'bright'], ['0.png:', 'dark']]
    out, _ = vrlit('predict', 'moved', '.', '--csv', '--top', 2, cwd=tmp_path / 'moved' / '..')
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == ['file', 'label_1', 'probability_1', 'label_2', 'probability_2'] and {r['label_1'] for r in rows[:2]} == {'dark', 'bright'}
    assert all(abs(float(r['probability_1']) + float(r['probability_2']) - 1) < 1e-5 for r in rows)
    assert 'files: there is no no.png' in vrlit('predict', 'moved', 'no.png', cwd=tmp_path, code=2)[1]
    assert 'error' in vrlit('predict', 'nowhere', '0.png', cwd=tmp_path, code=2)[1]
