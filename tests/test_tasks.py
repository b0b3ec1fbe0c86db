"""Tasks from files: every layout that torchvision and CoOp use, generated small, and, where `$VRLIT_SHARED` or `../shared` exists, real sets."""
import gzip, json, os, pickle, zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vrlit import tasks
from vrlit.tasks import Split, Task, batches, load_task, make_task

SHARED = Path(os.environ.get('VRLIT_SHARED') or Path(__file__).parents[2] / 'shared') / 'datasets'

def shared(name):
    if not (SHARED / name).exists(): pytest.skip(f'{name} is not there: set VRLIT_SHARED to the folder that has datasets/{name}')
    return SHARED / name

def noise(path, seed=0, h=20, w=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)).save(path)

def sizes(task): return {k: len(s) for k, s in task.splits.items()}

def unzip(archive, to, keep=lambda name: True):
    with zipfile.ZipFile(archive) as z: z.extractall(to, [n for n in z.namelist() if keep(n)])
    return to

@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    "No test touches the user's cache"
    monkeypatch.setenv('VRLIT_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'

# ---- the layouts of torchvision, generated -------------------------------------------------------------------------

@pytest.mark.parametrize('name, per_class', [('cifar10', 'labels'), ('cifar100', 'fine_labels')])
def test_cifar(tmp_path, monkeypatch, name, per_class):
    from torchvision import datasets
    kind = getattr(datasets, name.upper())
    folder, x, y = tmp_path / kind.base_folder, {}, {}
    folder.mkdir()
    for i, (file, _) in enumerate(kind.train_list + kind.test_list):
        x[file] = np.random.default_rng(i).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
        y[file] = [j % 10 for j in range(20)]
        (folder / file).write_bytes(pickle.dumps({'data': x[file].reshape(20, -1), per_class: y[file]}))
    (folder / kind.meta['filename']).write_bytes(pickle.dumps({kind.meta['key']: [f'name {k}' for k in range(10)]}))
    monkeypatch.setattr('torchvision.datasets.cifar.check_integrity', lambda *a: True)  # the checksums are of the real files
    task = load_task(name, tmp_path, val=.5)
    last = kind.test_list[0][0]
    assert task.labels == [f'name {k}' for k in range(10)] and task.size == 32
    assert (task.test.x.numpy() == x[last]).all() and task.test.y.tolist() == y[last]
    n = 20 * len(kind.train_list)
    assert sizes(task) == dict(train=n // 2, val=n // 2, test=20)

def test_svhn(tmp_path, monkeypatch):
    from scipy.io import savemat
    x = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 40), dtype=np.uint8)
    y = np.arange(40)[:, None] % 10 + 1                                              # 10 stands for the digit 0
    for part in ('train', 'test'): savemat(tmp_path / f'{part}_32x32.mat', dict(X=x, y=y))
    monkeypatch.setattr('torchvision.datasets.svhn.SVHN._check_integrity', lambda self: True)
    task = load_task('svhn', tmp_path, val=None)
    assert task.labels == [str(k) for k in range(10)] and task.test.y[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert (task.test.x[7].permute(1, 2, 0).numpy() == x[..., 7]).all()

def test_flowers102(tmp_path, monkeypatch):
    from scipy.io import savemat
    folder, n = tmp_path / 'flowers-102', 3 * 102
    for i in range(n): noise(folder / 'jpg' / f'image_{i + 1:05}.jpg', i)
    savemat(folder / 'imagelabels.mat', dict(labels=np.arange(n) % 102 + 1))
    savemat(folder / 'setid.mat', {k: np.arange(i * 102, (i + 1) * 102) + 1 for i, k in enumerate(('trnid', 'valid', 'tstid'))})
    monkeypatch.setattr('torchvision.datasets.flowers102.check_integrity', lambda *a: True)
    task = load_task('flowers102', tmp_path, size=8)
    assert sizes(task) == dict(train=102, val=102, test=102) and task.K == 102
    assert task.train.y.tolist() == list(range(102)) and 'train, val, test' in task.provenance

def test_food101(tmp_path):
    for part, i in dict(train=(0, 1), test=(2,)).items():
        meta = tmp_path / 'food-101' / 'meta' / f'{part}.json'
        meta.parent.mkdir(parents=True, exist_ok=True)
        meta.write_text(json.dumps({c: [f'{c}/{j}' for j in i] for c in ('waffles', 'apple_pie')}))
        for c in ('waffles', 'apple_pie'):
            for j in i: noise(tmp_path / 'food-101' / 'images' / c / f'{j}.jpg', j)
    task = load_task('food101', tmp_path, val=None)
    assert task.labels == ['apple_pie', 'waffles'] and task.size == 128 and sizes(task) == dict(train=4, test=2)

def test_oxfordpets(tmp_path):
    folder = tmp_path / 'oxford-iiit-pet'
    (folder / 'annotations').mkdir(parents=True)
    for part, i in dict(trainval=1, test=2).items():
        (folder / 'annotations' / f'{part}.txt').write_text(f'Abyssinian_{i} 1 1 1\npug_dog_{i} 2 2 1\n')
        for c in ('Abyssinian', 'pug_dog'): noise(folder / 'images' / f'{c}_{i}.jpg', i)
    task = load_task('oxfordpets', tmp_path, val=None)
    assert task.labels == ['Abyssinian', 'Pug Dog'] and 'trainval, test' in task.provenance and sizes(task) == dict(train=2, test=2)

def test_stanfordcars(tmp_path):
    from scipy.io import savemat
    folder = tmp_path / 'stanford_cars'
    (folder / 'devkit').mkdir(parents=True)
    savemat(folder / 'devkit' / 'cars_meta.mat', dict(class_names=np.array(['Audi', 'Fiat'], dtype=object)))
    for part, file in dict(train='devkit/cars_train_annos.mat', test='cars_test_annos_withlabels.mat').items():
        rows = np.array([(f'{i}.jpg', 2 - i % 2) for i in range(4)], dtype=[('fname', object), ('class', object)])
        savemat(folder / file, dict(annotations=rows))
        for i in range(4): noise(folder / f'cars_{part}' / f'{i}.jpg', i)
    task = load_task('stanfordcars', tmp_path, val=None)
    assert task.labels == ['Audi', 'Fiat'] and task.test.y.tolist() == [1, 0, 1, 0]

def test_sun397_does_not_depend_on_the_order_of_the_file_system(tmp_path, monkeypatch):
    folder = tmp_path / 'SUN397'
    for i in range(20): noise(folder / 'a' / ('abbey', 'attic')[i % 2] / f'sun_{i:02}.jpg', i)
    (folder / 'ClassName.txt').write_text('/a/abbey\n/a/attic\n')
    task = load_task('sun397', tmp_path, val=None)
    listed = Path.rglob
    monkeypatch.setattr(Path, 'rglob', lambda self, p: list(listed(self, p))[::-1])
    again = load_task('sun397', tmp_path, val=None)
    assert task.labels == ['abbey', 'attic'] and sizes(task) == dict(train=16, test=4) and 'seed 0' in task.provenance
    assert torch.equal(task.test.x, again.test.x) and torch.equal(task.test.y, again.test.y)

# ---- the layouts of CoOp, generated --------------------------------------------------------------------------------

@pytest.mark.parametrize('name', [k for k, s in tasks._SETS.items() if s.coop])
def test_coop(tmp_path, name):
    folder, file, images = tasks._SETS[name].coop
    items = [[f'sub/{i}.jpg', i % 2, ('zoo', 'air')[i % 2]] for i in range(8)]
    for i, (path, *_) in enumerate(items): noise(tmp_path / folder / images / path, i)
    (tmp_path / folder / file).write_text(json.dumps(dict(train=items[:4], val=items[4:6], test=items[6:])))
    task = load_task(name, tmp_path)
    assert task.labels == ['zoo', 'air'] and task.size == 128 and sizes(task) == dict(train=4, val=2, test=2)
    assert file in task.provenance
    for split, some in zip(task.splits.values(), (items[:4], items[4:6], items[6:])):  # each image with its own label
        for x, y, (path, label, _) in zip(split.x, split.y, some):
            with Image.open(tmp_path / folder / images / path) as im: want = np.asarray(im.resize((128, 128), Image.BILINEAR))
            assert y == label and (x.permute(1, 2, 0).numpy() == want).all()
    assert sizes(load_task(name, tmp_path, val=None)) == dict(train=4, test=2)

# ---- faults --------------------------------------------------------------------------------------------------------

@pytest.fixture
def pile(tmp_path):
    for i in range(60): noise(tmp_path / 'pile' / 'ab'[i % 2] / f'{i:02}.png', i)
    return tmp_path / 'pile'

@pytest.mark.parametrize('fault', [KeyboardInterrupt(), MemoryError(), OSError(28, 'No space left on device')])
def test_an_interrupted_cache_leaves_nothing(pile, cache, monkeypatch, fault):
    decode, seen = tasks._decode, []
    def one(path, size):
        seen.append(path)
        if len(seen) == 20: raise fault
        return decode(path, size)
    monkeypatch.setattr(tasks, '_decode', one)
    with pytest.raises(type(fault)): load_task(str(pile))
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(tasks, '_decode', decode)
    assert sum(sizes(load_task(str(pile))).values()) == 60

def test_a_second_load_decodes_nothing(pile, monkeypatch):
    first = load_task(str(pile))
    monkeypatch.setattr(tasks, '_decode', None)
    second = load_task(str(pile), seed=1)                                            # another cut, the same images
    assert not torch.equal(first.train.x, second.train.x)

@pytest.mark.parametrize('keep', [0, 10, 200, -200])
@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_truncated_file(tmp_path, cache, keep, suffix):
    for i in range(4): noise(tmp_path / 'f' / 'ab'[i % 2] / f'{i}.{suffix}', i)
    bad = tmp_path / 'f' / 'a' / f'2.{suffix}'
    bad.write_bytes(bad.read_bytes()[:keep])
    with pytest.raises(ValueError, match='unreadable image file') as e: load_task(str(tmp_path / 'f'), size=16, val=None)
    assert str(bad) in str(e.value)
    assert not cache.exists() or not list(cache.iterdir())

def test_no_network(tmp_path, monkeypatch):
    from urllib.error import URLError
    def none(*a, **kw): raise URLError('no network')
    monkeypatch.setattr('urllib.request.urlopen', none)
    for name, s in tasks._SETS.items():
        with pytest.raises(FileNotFoundError) as e: load_task(name, tmp_path / name, download=True)
        assert e.value.__cause__ is not None and str(tmp_path / name) in str(e.value)
        assert all(part in str(e.value) for part in ([s.files] if s.files else []) + ([s.coop[1]] if s.coop else []))

def test_a_class_missing_from_train_keeps_its_number(tmp_path):
    for part, classes in dict(train='ac', test='abc').items():
        for i in range(6): noise(tmp_path / 'f' / part / classes[i % len(classes)] / f'{i}.png', i)
    with pytest.warns(UserWarning, match=r"no training image of \['b'\]"): task = load_task(str(tmp_path / 'f'), val=None)
    assert task.labels == ['a', 'b', 'c'] and task.train.y.unique().tolist() == [0, 2]

def test_a_split_that_streams_is_never_read_whole(pile, monkeypatch):
    task = load_task(str(pile), memory=0)
    monkeypatch.setattr(Split, 'x', property(lambda self: 1 / 0))
    few = task.few_shot(3)
    for x, y in batches(few.train, 4, generator=torch.Generator().manual_seed(0)): assert x.shape[1:] == (3, 128, 128)
    assert few.train.images is task.test.images and 'on disk' in repr(task)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_device(pile, monkeypatch):
    task = load_task(str(pile), memory=0)
    there = task.to('cuda')
    assert there.train.images.device.type == 'cuda' and torch.equal(there.train.x.cpu(), task.train.x)
    assert torch.equal(there.few_shot(2).train.x.cpu(), task.few_shot(2).train.x)
    order = lambda s, **kw: torch.cat([x for x, _ in batches(s, 7, generator=torch.Generator().manual_seed(0), **kw)]).cpu()
    assert torch.equal(order(there.train), order(task.train)) and torch.equal(order(task.train, device='cuda'), order(task.train))
    monkeypatch.setattr(tasks, '_free', lambda device: 0)
    assert task.to('cuda').train is task.train                                       # does not fit: stays

# ---- real sets -----------------------------------------------------------------------------------------------------

def test_real_textures(tmp_path, cache):
    folder = unzip(shared('dtd_10of47classes_160px.zip'), tmp_path / 'dtd10')
    task = load_task('dtd10', tmp_path, size=64)
    assert task.labels[0] == 'banded' and sizes(task) == dict(train=864, val=96, test=240)
    assert torch.bincount(task.test.y).tolist() == [24] * 10 and set(torch.bincount(task.val.y).tolist()) <= {9, 10}
    (file,) = cache.iterdir()
    with Image.open(sorted((folder / 'banded').iterdir())[0]) as im:
        assert (np.load(file)[0].transpose(1, 2, 0) == np.asarray(im.convert('RGB').resize((64, 64), Image.BILINEAR))).all()
    disk = load_task('dtd10', tmp_path, size=64, memory=0)
    assert list(cache.iterdir()) == [file] and torch.equal(disk.val.x, task.val.x)
    bad = next((folder / task.labels[-1]).iterdir())
    bad.write_bytes(bad.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=bad.name): load_task('dtd10', tmp_path, size=64)
    assert list(cache.iterdir()) == [file]

def test_real_cifar10_folder(tmp_path):
    some = lambda name: int('0' + ''.join(c for c in Path(name).stem if c.isdigit())) < 500
    unzip(shared('cifar10_10ktrain_10ktest_jpg.zip'), tmp_path / 'cifar', some)
    task = load_task('cifar', tmp_path, shots=16)
    assert task.size == 32 and task.labels[:2] == ['airplane', 'automobile'] and len(task.train) == 160   # native size is kept

def test_real_arrays():
    z = np.load(shared('gtsrb_4300train_4300test_32px.npz'))
    nchw = lambda x: x.transpose(0, 3, 1, 2).copy() if x.shape[-1] == 3 else x
    task = make_task('signs', (nchw(z['x_train']), z['y_train']), (nchw(z['x_test']), z['y_test']), labels=tasks._SIGNS)
    assert task.K == 43 and len(task.test) == 4300 and isinstance(task, Task)

def test_real_grey_digits():
    read = lambda name, skip: np.frombuffer(gzip.decompress(name.read_bytes()), np.uint8, offset=skip).copy()
    files = sorted(SHARED.glob('mnist_t10k-*.gz'))
    if len(files) != 2: pytest.skip('mnist_t10k-*.gz are not there: set VRLIT_SHARED')
    x, y = read(files[0], 16).reshape(-1, 28, 28), read(files[1], 8)
    task = make_task('mnist', (x, y))
    assert sizes(task) == dict(train=7200, val=800, test=2000) and task.size == 28 and task.train.shape == (3, 28, 28)
