"""Tasks from files: every layout that torchvision and CoOp use, generated small, and, where `$VRLIT_SHARED` has them, real sets."""
import gzip, hashlib, json, os, pickle, warnings, zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vrlit import loaders, pixels, tasks
from vrlit.loaders import load_task
from vrlit.tasks import Split, batches, make_task

SHARED = os.environ.get('VRLIT_SHARED')

def shared(name):
    file = Path(SHARED or '') / 'datasets' / name
    if not SHARED or not file.exists(): pytest.skip(f'{name} is not there: set VRLIT_SHARED to the folder that has datasets/{name}')
    return file

def noise(path, seed=0, h=20, w=24):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)).save(path)

def npy(cache): return sorted(p for p in cache.glob('*') if p.suffix != '.contents') # all that a load leaves there, but for small notes

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

@pytest.mark.parametrize('name', [k for k, s in loaders._SETS.items() if s.coop])
def test_coop(tmp_path, name):
    folder, file, images = loaders._SETS[name].coop
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
    (tmp_path / folder).rename(tmp_path / 'any-folder')                            # what it is called does not matter
    for other in ('any-folder', f'any-folder/{file}'):
        again = load_task(other, tmp_path, size=128)
        assert torch.equal(again.test.x, task.test.x) and again.labels == task.labels and again.provenance == task.provenance

# ---- faults --------------------------------------------------------------------------------------------------------

@pytest.fixture
def pile(tmp_path):
    for i in range(60): noise(tmp_path / 'pile' / 'ab'[i % 2] / f'{i:02}.png', i, 20, 20)
    return tmp_path / 'pile'

@pytest.mark.parametrize('fault', [KeyboardInterrupt(), MemoryError(), OSError(28, 'No space left on device')])
def test_an_interrupted_cache_leaves_nothing(pile, cache, monkeypatch, fault):
    decode, seen = loaders._decode, []
    def one(*args):
        seen.append(args)
        if len(seen) == 20: raise fault
        return decode(*args)
    monkeypatch.setattr(loaders, '_decode', one)
    with pytest.raises(type(fault)): load_task(str(pile))
    assert npy(cache) == []
    monkeypatch.setattr(loaders, '_decode', decode)
    assert sum(sizes(load_task(str(pile))).values()) == 60

def test_filter_and_crop_are_the_papers(tmp_path):
    from torchvision import transforms as T
    for i in range(10): noise(tmp_path / 'f' / 'ab'[i % 2] / f'{i}.png', i, 30, 40)
    with Image.open(tmp_path / 'f' / 'a' / '0.png') as im:
        cut = lambda mode: T.Compose([T.Resize(16, T.InterpolationMode(mode)), T.CenterCrop(16)])(im)       # CLIP's
        for kwargs, want in ((dict(), im.resize((16, 16), Image.BILINEAR)), (dict(mode='bicubic'), im.resize((16, 16), Image.BICUBIC)),
                             (dict(crop=True), cut('bilinear')), (dict(crop=True, mode='bicubic'), cut('bicubic'))):
            task = load_task(str(tmp_path / 'f'), size=16, val=None, **kwargs)
            assert any((x.permute(1, 2, 0).numpy() == np.asarray(want)).all() for s in task.splits.values() for x in s.x), kwargs
    with pytest.raises(ValueError, match="mode: expected 'bilinear' or 'bicubic', got 'nearest'"): load_task(str(tmp_path / 'f'), mode='nearest')

def test_a_second_load_decodes_nothing(pile, monkeypatch):
    first = load_task(str(pile))
    monkeypatch.setattr(loaders, '_decode', None)
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
    assert npy(cache) == []

@pytest.mark.parametrize('suffix', ['gif', 'webp', 'png'])
def test_animated_image(pile, suffix):
    frames = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (20, 20, 3), dtype=np.uint8)) for i in range(3)]
    frames[0].save(pile / 'a' / f'film.{suffix}', save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match=rf'film.{suffix}: expected a still image, got an animation of 3 frames'): load_task(str(pile))

def test_decompression_bomb(pile, tmp_path, cache):
    "A file of 50 KB that claims 400 million pixels, in a folder and in a zip"
    import struct, zlib
    chunk = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    bomb = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 20000, 20000, 1, 0, 0, 0, 0)) + \
        chunk(b'IDAT', zlib.compress(bytes(20000 * 2501), 9)) + chunk(b'IEND', b'')
    (pile / 'a' / 'bomb.png').write_bytes(bomb)
    with zipfile.ZipFile(tmp_path / 'pile.zip', 'w') as z:
        for p in pile.rglob('*.png'): z.write(p, p.relative_to(pile))
    for name in ('pile', 'pile.zip'):
        with pytest.raises(ValueError, match='bomb.png: .*exceeds limit of .* pixels'): load_task(name, tmp_path)
    assert npy(cache) == []

def test_empty_class_folder(pile, tmp_path):
    (pile / 'nothing').mkdir()
    with pytest.raises(ValueError, match=r"pile: expected a folder of images \(.jpg .*\) for each class, found no image in class folder 'nothing'"): load_task(str(pile))
    with zipfile.ZipFile(tmp_path / 'pile.zip', 'w') as z:
        for p in pile.rglob('*'): z.write(p, p.relative_to(pile))
    with pytest.raises(ValueError, match="found no image in class folder 'nothing'"): load_task(str(tmp_path / 'pile.zip'))

def test_a_split_file_that_names_a_missing_image(tmp_path):
    folder, file, images = loaders._SETS['dtd'].coop
    items = [[f'{i}.jpg', i % 2, 'ab'[i % 2]] for i in range(6)]
    for i in range(5): noise(tmp_path / folder / images / f'{i}.jpg', i)
    (tmp_path / folder / file).write_text(json.dumps(dict(train=items[:2], val=items[2:4], test=items[4:])))
    with pytest.raises(FileNotFoundError, match=rf'{file}: lists 6 images, 1 of which are not there, the first .*5.jpg'): load_task('dtd', tmp_path)

def test_fewer_images_than_shots(pile):
    with pytest.raises(ValueError, match=r"k: expected 40 training images per class, pile has fewer: \{'a': \d+, 'b': \d+\}"): load_task(str(pile), shots=40)

@pytest.mark.parametrize('y, got', [([0., 1.], 'torch.float64'), (['cat', 'dog'], r"\['cat', 'dog'\]"), (np.array(['cat', 'dog'], dtype=object), 'cat'),
                                    ([True, False], 'torch.bool'), ([[0, 1], [1, 0]], r'\[2, 2\]')])
def test_labels_of_another_kind(y, got):
    with pytest.raises(ValueError, match=f'y: expected integer labels of shape .N., got .*{got}'): make_task('t', (np.zeros((2, 4, 4), np.uint8), y))

def test_half_a_cache_is_made_again(pile, cache):
    task = load_task(str(pile))
    (file,) = npy(cache)
    for keep in (0, 60, 5000):
        data = file.read_bytes()
        file.unlink(); file.write_bytes(data[:keep])
        with pytest.warns(UserWarning, match=f'{file.name} is damaged and will be made again'): again = load_task(str(pile))
        assert torch.equal(again.train.x, task.train.x) and npy(cache) == [file]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load_task(str(pile))

def test_a_disk_that_fills_while_caching(pile, cache, python):
    "A real limit of the system on the length of a file, so that a write fails; and a disk that is full before"
    code = f"""
import resource, vrlit
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try: vrlit.load_task({str(pile)!r}, size=64, cache={str(cache)!r})
except OSError as e: print(type(e).__name__, e)
"""
    said = python('-c', code)
    assert 'No space left' in said or 'cache: no room for' in said
    assert 'VRLIT_CACHE' in said and str(cache) in said and npy(cache) == []
    from collections import namedtuple
    with pytest.MonkeyPatch.context() as m:
        m.setattr(loaders.shutil, 'disk_usage', lambda p: namedtuple('Usage', 'total used free')(1, 1, 1000))
        with pytest.raises(OSError, match='cache: no room for 1 MB of decoded images, 0 MB free'): load_task(str(pile), size=64)
    assert npy(cache) == []

def test_hugging_face(tmp_path, pile):
    hf = pytest.importorskip('datasets')
    paths = sorted(map(str, pile.rglob('*.png')))
    table = hf.Dataset.from_dict(dict(image=paths, label=[Path(p).parent.name == 'b' for p in paths])).cast_column('image', hf.Image())
    data = table.cast_column('label', hf.ClassLabel(names=['a', 'b'])).train_test_split(.2, seed=0)
    data.save_to_disk(str(tmp_path / 'saved'))
    saved, memory = load_task('saved', tmp_path, val=None), load_task(data, val=None)
    assert saved.labels == ['a', 'b'] and sizes(saved) == dict(train=48, test=12) and saved.size == 20
    assert torch.equal(saved.train.x, memory.train.x) and saved.train.y.tolist() == data['train']['label'][:]
    assert (saved.test.x[0].permute(1, 2, 0).numpy() == np.asarray(data['test'][0]['image'])).all()
    words = hf.Dataset.from_dict(dict(image=paths, label=[Path(p).parent.name for p in paths])).cast_column('image', hf.Image())
    assert load_task(words).labels == ['a', 'b']
    hidden = hf.DatasetDict(train=data['train'], test=data['test'].remove_columns('label').add_column('label', [-1] * 12))
    assert sum(sizes(load_task(hidden)).values()) == 48

def test_no_network(tmp_path, monkeypatch):
    from urllib.error import URLError
    def none(*a, **kw): raise URLError('no network')
    monkeypatch.setattr('urllib.request.urlopen', none)
    for name, s in loaders._SETS.items():
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
    for x, y in batches(few.train, 4, generator=torch.Generator().manual_seed(0)): assert x.shape[1:] == (3, 20, 20)
    assert few.train.images is task.train.images and 'on disk' in repr(task)

def test_200_000_images_stream_in_little_memory(tmp_path, python):
    "An epoch and a label mapping over a set of 154 MB; its logits alone would be 800 MB"
    code = """
import resource, sys, numpy as np, torch, vrlit as vr
N, S, K = 200_000, 1000, 10
x = np.lib.format.open_memmap('x.npy', 'w+', np.uint8, (N, 3, 16, 16))
for i in range(0, N, 10_000): x[i:i + 10_000] = np.random.default_rng(i).integers(0, 256, (10_000, 3, 16, 16), dtype=np.uint8)
del x
x, y = np.load('x.npy', mmap_mode='r'), torch.arange(N) % K
net = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(12, S))
source = vr.load_source(net, size=16)
task = vr.make_task('large', (x, y), (x[:1000], y[:1000]), val=None)
model = vr.Reprogrammed(vr.Watermark(source), source, vr.FLM(S, K))
def now(): return int(open('/proc/self/status').read().split('VmRSS:')[1].split()[0]) / 1024
def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) / 1024
list(zip(range(3), vr.batches(task.train, 256, generator=torch.Generator().manual_seed(0)))); vr.evaluate(model, task.test)
open('/proc/self/clear_refs', 'w').write('5') # the peak starts here
before, seen = now(), 0
for bx, by in vr.batches(task.train, 256, generator=torch.Generator().manual_seed(0)): seen += len(by)
vr.update_mapping(model, task.train)
print(seen, int(peak() - before))
"""
    if not os.access('/proc/self/clear_refs', os.W_OK): pytest.skip('the peak of the resident set is measured through /proc')
    seen, growth = map(int, python('-c', code, cwd=tmp_path).split())
    assert seen == 200_000 and growth < 40, f'{growth} MB'

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
    (file,) = npy(cache)
    with Image.open(sorted((folder / 'banded').iterdir())[0]) as im:
        assert (np.load(file)[0].transpose(1, 2, 0) == np.asarray(im.convert('RGB').resize((64, 64), Image.BILINEAR))).all()
    disk = load_task('dtd10', tmp_path, size=64, memory=0)
    assert npy(cache) == [file] and torch.equal(disk.val.x, task.val.x)
    bad = next((folder / task.labels[-1]).iterdir())
    bad.write_bytes(bad.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=bad.name): load_task('dtd10', tmp_path, size=64)
    assert npy(cache) == [file]

def test_real_cifar10_folder(tmp_path):
    some = lambda name: int('0' + ''.join(c for c in Path(name).stem if c.isdigit())) < 500
    unzip(shared('cifar10_10ktrain_10ktest_jpg.zip'), tmp_path / 'cifar', some)
    task = load_task('cifar', tmp_path, shots=16)
    assert task.size == 32 and task.labels[:2] == ['airplane', 'automobile'] and len(task.train) == 160   # native size is kept

def test_real_signs(tmp_path):
    "The arrays as they are; and as torchvision's layout, .ppm and CSV"
    file = shared('gtsrb_4300train_4300test_32px.npz')
    task = load_task(str(file))
    z = np.load(file)
    assert (task.K, len(task.test), task.size) == (43, 4300, 32) and (task.test.x.permute(0, 2, 3, 1).numpy() == z['x_test']).all()
    assert task.record()['splits']['test']['labels_sha256'] == hashlib.sha256(z['y_test'].astype('<i8').tobytes()).hexdigest()
    rows = [(z[f'x_{part}'][z[f'y_{part}'] == k][0], k, part) for k in range(43) for part in ('train', 'test')]
    base = tmp_path / 'gtsrb'
    for x, k, part in rows:
        path = base / (f'GTSRB/Training/{k:05}/00000.ppm' if part == 'train' else f'GTSRB/Final_Test/Images/{k:05}.ppm')
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(path)
    (base / 'GT-final_test.csv').write_text('Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n' + ''.join(f'{k:05}.ppm;32;32;0;0;31;31;{k}\n' for k in range(43)))
    signs = load_task('gtsrb', tmp_path, val=None)
    assert signs.labels[14] == 'stop' and signs.train.y.tolist() == signs.test.y.tolist() == list(range(43))
    assert (signs.train.x[14].permute(1, 2, 0).numpy() == rows[28][0]).all() and not signs.augment().flip

def test_real_digits(tmp_path):
    "MNIST's test digits in the original files; the first thousand stand in for the training file, which is not here"
    raw = tmp_path / 'MNIST' / 'raw'
    raw.mkdir(parents=True)
    for kind, item in dict(images=784, labels=1).items():
        head = 16 if kind == 'images' else 8
        name = f'{kind}-idx{3 if kind == "images" else 1}-ubyte'
        data = gzip.decompress(shared(f'mnist_t10k-{name}.gz').read_bytes())
        (raw / f't10k-{name}').write_bytes(data)
        (raw / f'train-{name}').write_bytes(data[:4] + (1000).to_bytes(4, 'big') + data[8:head + 1000 * item])
    task = load_task('mnist', tmp_path)
    assert sizes(task) == dict(train=900, val=100, test=10000) and task.size == 28 and task.train.shape == (3, 28, 28)
    assert task.test.y[:5].tolist() == [7, 2, 1, 0, 4] and task.labels[7].startswith('7') and not task.flip   # as everybody knows them

def test_real_cifar10(tmp_path, monkeypatch):
    "Real photographs in the original pickles"
    folder = tmp_path / 'cifar-10-batches-py'
    folder.mkdir()
    with zipfile.ZipFile(shared('cifar10_10ktrain_10ktest_jpg.zip')) as z:
        names = {part: sorted(n for n in z.namelist() if f'{part}/' in n and n.endswith('.jpg'))[::50] for part in ('train', 'test')}
        images = {part: np.stack([np.asarray(Image.open(z.open(n)).convert('RGB')) for n in some]) for part, some in names.items()}
    classes = sorted({n.split('/')[-2] for n in names['train']})
    y = {part: [classes.index(n.split('/')[-2]) for n in some] for part, some in names.items()}
    of = lambda x, y: pickle.dumps({'data': x.transpose(0, 3, 1, 2).reshape(len(x), -1), 'labels': list(y)})
    for i in range(5): (folder / f'data_batch_{i + 1}').write_bytes(of(images['train'][i::5], y['train'][i::5]))
    (folder / 'test_batch').write_bytes(of(images['test'], y['test']))
    (folder / 'batches.meta').write_bytes(pickle.dumps({'label_names': classes}))
    monkeypatch.setattr('torchvision.datasets.cifar.check_integrity', lambda *a: True)
    task = load_task('cifar10', tmp_path, val=None)
    assert task.labels == classes and sizes(task) == dict(train=200, test=200) and task.flip
    assert (task.test.x.permute(0, 2, 3, 1).numpy() == images['test']).all() and task.test.y.tolist() == y['test']

def test_real_textures_in_the_original_layout(tmp_path):
    base = tmp_path / 'dtd' / 'dtd'
    with zipfile.ZipFile(shared('dtd_10of47classes_160px.zip')) as z:
        classes = sorted({n.split('/')[-2] for n in z.namelist() if n.endswith('.jpg')})
        for part, i in dict(train=0, val=1, test=2).items():
            for c in classes:
                name = sorted(n for n in z.namelist() if f'/{c}/' in f'/{n}' and n.endswith('.jpg'))[i]
                path = base / 'images' / c / Path(name).name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(z.read(name))
                (base / 'labels').mkdir(exist_ok=True)
                with open(base / 'labels' / f'{part}1.txt', 'a') as f: f.write(f'{c}/{path.name}\n')
    task = load_task('dtd', tmp_path)
    assert task.labels == classes and task.labels[0] == 'banded' and task.size == 128 and task.train.y.tolist() == list(range(10))
    assert 'train, val, test' in task.provenance and sizes(task) == dict(train=10, val=10, test=10)

def test_a_real_zip_is_its_folder(tmp_path, cache):
    archive = shared('flowers5_128px.zip')
    with zipfile.ZipFile(archive) as z: names = [n for n in z.namelist() if n.endswith('.jpg')][::40]
    unzip(archive, tmp_path / 'flowers', lambda n: n in names)
    with zipfile.ZipFile(archive) as z, zipfile.ZipFile(tmp_path / 'packed.zip', 'w') as to:
        for n in names: to.writestr(n, z.read(n))
    packed, plain = load_task(str(tmp_path / 'packed.zip'), size=32), load_task(str(tmp_path / 'flowers'), size=32)
    assert packed.labels == plain.labels and packed.K == 5 and sizes(packed) == sizes(plain)
    assert torch.equal(packed.train.x, plain.train.x) and packed.record()['splits'] == plain.record()['splits']

@pytest.mark.parametrize('mode', ['bilinear', 'bicubic'])
def test_resizing_any_shape_is_pils(mode):
    "The installed one's: from version 13 on, much too tall images lose their height first"
    r = np.random.default_rng(0)
    for h, w, size in [(333, 41, 8), (333, 8, 24), (50, 8, 24), (64, 44, 24), (65, 44, 24), *r.integers(1, 150, (200, 3)).tolist()]:
        x = r.integers(0, 256, (h, w, 3), dtype=np.uint8)
        want = np.array(Image.fromarray(x).resize((size, size), Image.Resampling[mode.upper()]))
        got = pixels.resize(torch.from_numpy(x).permute(2, 0, 1)[None], size, mode=mode)[0].permute(1, 2, 0)
        assert np.array_equal(got, want), (h, w, size)

@pytest.mark.parametrize('mode', ['bilinear', 'bicubic'])
def test_resizing_real_photographs_is_pils(mode):
    with zipfile.ZipFile(shared('dtd_10of47classes_160px.zip')) as z:
        images = [Image.open(z.open(n)).convert('RGB').crop((0, 0, 160, 160)) for n in sorted(z.namelist()) if n.endswith('.jpg')][::40]
    x = torch.stack([torch.from_numpy(np.array(im)).permute(2, 0, 1) for im in images])
    for size in (32, 96, 128, 192, 224, 256):
        want = torch.stack([torch.from_numpy(np.array(im.resize((size, size), Image.Resampling[mode.upper()]))).permute(2, 0, 1) for im in images])
        assert torch.equal(pixels.resize(x, size, mode=mode), want)
        if torch.cuda.is_available(): assert torch.equal(pixels.resize(x.cuda(), size, mode=mode).cpu(), want)
