"Files as people have them: deep, transparent and lying pictures, folders of any name, links, caches that others share"
import io, os, shutil, stat, struct, warnings, zipfile
from pathlib import Path

import numpy as np, pytest, torch
from PIL import Image

import vrlit as vr
from conftest import ORDINARY, SOMEBODY, root_only
from vrlit import load_task
from vrlit.loaders import list_tasks

@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VRLIT_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'

def grey(seed, side=12): return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)

def through(image, kind='PNG', **how):
    "The picture from a file"
    file = io.BytesIO()
    image.save(file, kind, **how)
    return Image.open(file)

def pictures(folder, n=40, save=None, names='ab'):
    "Two classes of noise, the second brighter"
    for i in range(n):
        path = folder / names[i % 2] / f'{i:02}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        v = grey(i) // 2 + 128 * (i % 2)
        (save or (lambda v, path: Image.fromarray(v).save(path)))(v.astype(np.uint8), path)
    return folder

# ---- modes ---------------------------------------------------------------------------------------------------------

def one(image): return np.asarray(vr.rgb(image))

@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_sixteen_bits_are_scaled(kind):
    v = grey(0)
    for mode in ('<u2', '>u2'):
        if kind == 'PNG' and mode == '>u2': continue
        deep = through(Image.fromarray((v.astype(np.uint16) * 257).astype(mode)), kind)
        assert deep.mode.startswith('I;16') and (one(deep) == v[..., None]).all()

def test_a_deep_pgm_and_colours_of_sixteen_bits():
    v = grey(0).astype(np.uint16) * 257
    pgm = Image.open(io.BytesIO(b'P5 12 12 65535\n' + v.astype('>u2').tobytes()))
    assert pgm.mode == 'I' and (one(pgm)[..., 0] == grey(0)).all()
    ppm = Image.open(io.BytesIO(b'P6 12 12 65535\n' + np.repeat(v[..., None], 3, 2).astype('>u2').tobytes()))
    assert (one(ppm)[..., 1] == grey(0)).all()

def test_twelve_bits():
    "In a TIFF that says so they are scaled; in a file of 16 bits they are dark, which warns"
    v = (np.arange(16) * 273).astype(np.uint16) # 0 ... 4095
    bits = ''.join(f'{k:012b}' for k in v)
    data = bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))
    tags = {256: 16, 257: 1, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(data)} # 8: where the pixels begin
    entries = b''.join(struct.pack('<HHII', tag, 4, 1, value) for tag, value in tags.items())
    tiff = Image.open(io.BytesIO(b'II*\0' + struct.pack('<I', 8 + len(data)) + data + struct.pack('<H', len(tags)) + entries + bytes(4)))
    assert one(tiff)[0, :, 0].tolist() == [17 * i for i in range(16)]
    with pytest.warns(UserWarning, match='no value above 4095, and becomes nearly black'): vr.rgb(through(Image.fromarray(v.reshape(4, 4))))

def test_a_tiff_where_white_is_zero():
    v = grey(0).astype(np.uint16) * 257
    assert (one(through(Image.fromarray(v), 'TIFF', tiffinfo={262: 0}))[..., 0] == 255 - grey(0)).all()

@pytest.mark.parametrize('array, said', [(np.float32, r'floating numbers \(mode F\)'), (np.int32, r'signed or 32-bit numbers \(mode I\)')])
def test_numbers_without_a_white_are_refused(tmp_path, array, said):
    with pytest.raises(ValueError, match=said): vr.rgb(through(Image.fromarray(grey(0).astype(array)), 'TIFF'))
    pictures(tmp_path / 'f')
    Image.fromarray(grey(0).astype(array)).save(tmp_path / 'f' / 'a' / 'odd.tif')
    with pytest.raises(ValueError, match=rf'odd.tif: expected pixels of 8 or 16 bits, got {said}'): load_task(tmp_path / 'f')

def test_what_is_transparent_is_laid_on_white():
    v = np.zeros((2, 2, 4), np.uint8)
    v[0] = 10, 20, 30, 255 # opaque; the rest hides black
    v[1, 1] = 0, 0, 0, 128
    said = one(through(Image.fromarray(v)))
    assert said[0].tolist() == [[10, 20, 30]] * 2 and said[1].tolist() == [[255] * 3, [127] * 3]
    assert one(through(Image.fromarray(np.array([[[50, 255], [50, 0]]], np.uint8), 'LA'))).tolist() == [[[50] * 3, [255] * 3]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), 'P'); palette.putpalette([9, 9, 9, 7, 7, 7])
    assert one(through(palette, transparency=1)).tolist() == [[[9] * 3, [255] * 3]]
    assert one(through(Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)), transparency=(4, 5, 6))).tolist() == [[[1, 2, 3], [255] * 3]]

@pytest.mark.parametrize('mode', ['1', 'L', 'P', 'RGB', 'CMYK', 'YCbCr'])
def test_the_other_modes_are_as_pil_converts_them(mode):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).convert(mode)
    kept = through(image, 'TIFF' if mode in ('CMYK', 'YCbCr') else 'PNG')
    assert kept.mode == mode and (one(kept) == np.asarray(kept.convert('RGB'))).all()

@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF', 'WEBP'])
def test_orientation(orientation, kind):
    v = np.zeros((16, 32), np.uint8); v[:8, :8] = 255 # white in one corner
    exif = Image.Exif(); exif[274] = orientation
    lossless = dict(lossless=True) if kind == 'WEBP' else dict(quality=95) if kind == 'JPEG' else {}
    said = one(through(Image.fromarray(v).convert('RGB'), kind, exif=exif, **lossless))[..., 0]
    corner = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[orientation] # of the standard: row 0, column 0 of what is shown
    h, w = (16, 32) if orientation < 5 else (32, 16)
    assert said.shape == (h, w)
    assert said[(h - 1) * corner[0], (w - 1) * corner[1]] > 200 and (said > 128).sum() == 64

def test_deep_and_plain_files_are_the_same_task(tmp_path):
    "Two classes, grey, 28 pixels, as a set of X-rays: PNGs of 8 and of 16 bits, and an .npz"
    arrays = {part: [(grey(1000 * k + i, 28) // 2 + 60 * (i % 2)).astype(np.uint8) for i in range(n)] for k, (part, n) in enumerate(dict(train=60, val=10, test=20).items())}
    for part, images in arrays.items():
        for bits in 8, 16:
            for i, v in enumerate(images):
                path = tmp_path / f'png{bits}' / part / ('normal', 'pneumonia')[i % 2] / f'{i}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(v if bits == 8 else v.astype(np.uint16) * 257).save(path)
    plain, deep = load_task(tmp_path / 'png8'), load_task(tmp_path / 'png16')
    for part in arrays:
        (x, y), (same, names) = plain.splits[part][:], deep.splits[part][:]
        assert torch.equal(x, same) and torch.equal(y, names) and x.float().std() > 30

# ---- folders -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('train, val, test', [('Train', 'Val', 'Test'), ('training', 'valid', 'testing'), ('TRAINING_SET', 'validation-set', 'test set'), ('train', 'dev', 'TEST')])
def test_names_of_splits(tmp_path, train, val, test):
    for k, name in enumerate((train, val, test)): pictures(tmp_path / 'f' / name, 8, lambda v, path, k=k: Image.fromarray(v ^ k).save(path))
    task = load_task(tmp_path / 'f')
    assert task.labels == ['a', 'b'] and {k: len(s) for k, s in task.splits.items()} == dict(train=8, val=8, test=8)
    with zipfile.ZipFile(tmp_path / 'f.zip', 'w') as z:
        for p in (tmp_path / 'f').rglob('*.png'): z.write(p, p.relative_to(tmp_path / 'f'))
    assert torch.equal(load_task(tmp_path / 'f.zip').val.x, task.val.x)

def test_two_names_of_one_split(tmp_path):
    for name in ('train', 'test', 'val', 'valid'): pictures(tmp_path / 'f' / name, 4)
    with pytest.raises(ValueError, match='val and valid both mean the val split; rename one'): load_task(tmp_path / 'f')

def test_a_tree_in_which_every_class_holds_the_same_subfolders(tmp_path):
    for name in ('fold1', 'fold2'): pictures(tmp_path / 'f' / name, 4, names=('cat', 'dog'))
    with pytest.raises(ValueError, match=r'every class folder \(fold1, fold2\) holds the same subfolders \(cat, dog\)'): load_task(tmp_path / 'f')
    for part in ('train', 'test'): shutil.copytree(tmp_path / 'f', tmp_path / 'g' / part)
    with pytest.raises(ValueError, match=r'every class folder \(fold1, fold2\) holds the same'): load_task(tmp_path / 'g')
    shutil.copytree(tmp_path / 'f' / 'fold1', tmp_path / 'h')
    for c in ('cat', 'dog'): # as Tiny ImageNet has it: one folder in each class
        (tmp_path / 'h' / c).rename(tmp_path / 'h' / 'images'); (tmp_path / 'h' / c).mkdir(); (tmp_path / 'h' / 'images').rename(tmp_path / 'h' / c / 'images')
    for i in range(8): pictures(tmp_path / 'h' / 'cat' / 'images', 0); Image.fromarray(grey(100 + i)).save(tmp_path / 'h' / ('cat', 'dog')[i % 2] / 'images' / f'more{i}.png')
    assert load_task(tmp_path / 'h', val=None).labels == ['cat', 'dog']

def test_train_and_val_alone(tmp_path):
    for k, part in enumerate(('train', 'val')): pictures(tmp_path / 'f' / part, 40, lambda v, path, k=k: Image.fromarray(v ^ k).save(path))
    with pytest.raises(ValueError, match='expected a test split, got train and val alone; val_as_test=True takes val as the test split'): load_task(tmp_path / 'f')
    sizes = lambda **kw: {k: len(s) for k, s in load_task(tmp_path / 'f', **kw).splits.items()}
    assert sizes(val_as_test=True) == dict(train=36, val=4, test=40)
    assert sizes(val_as_test=False) == dict(train=32, val=40, test=8)
    pictures(tmp_path / 'f' / 'test', 4)
    with pytest.raises(ValueError, match='val_as_test: .* has train, val, test'): load_task(tmp_path / 'f', val_as_test=True)

def test_links(tmp_path):
    "A loop is not followed, a file counts once, and what is in train and in test warns"
    for k, part in enumerate(('train', 'test')): pictures(tmp_path / 'f' / part, 40, lambda v, path, k=k: Image.fromarray(v ^ k).save(path))
    counts = lambda: {k: len(s) for k, s in load_task(tmp_path / 'f', val=None).splits.items()}
    try: (tmp_path / 'f' / 'train' / 'a' / 'loop').symlink_to(tmp_path / 'f', target_is_directory=True)
    except OSError: pytest.skip('no links here')
    (tmp_path / 'f' / 'train' / 'b' / 'same.png').symlink_to(tmp_path / 'f' / 'train' / 'b' / '01.png')
    (tmp_path / 'f' / 'train' / 'b' / 'again').symlink_to('.', target_is_directory=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert counts() == dict(train=40, test=40)
    for i in range(3): (tmp_path / 'f' / 'test' / 'a' / f'seen{i}.png').symlink_to(tmp_path / 'f' / 'train' / 'a' / f'{2 * i:02}.png')
    with pytest.warns(UserWarning, match='3 of 43 test images are in train, too, byte for byte'): assert counts() == dict(train=40, test=43)
    with pytest.warns(UserWarning, match='3 of 43 test images'): counts() # from the cache, too

def test_twins(tmp_path):
    pictures(tmp_path / 'f')
    for i in range(4): shutil.copy(tmp_path / 'f' / 'a' / f'{2 * i:02}.png', tmp_path / 'f' / 'a' / f'copy{i}.png')
    with pytest.warns(UserWarning, match='4 of 44 images are there more than once, byte for byte; a cut can put the same image into train and test'): load_task(tmp_path / 'f')
    x, y = np.stack([grey(i) for i in range(20)]), np.arange(20) % 2
    np.savez(tmp_path / 'n.npz', x_train=x, y_train=y, x_test=x[:5], y_test=y[:5])
    with pytest.warns(UserWarning, match='5 of 5 test images are in train'): load_task(tmp_path / 'n.npz', val=None)

def test_a_known_name_is_that_name(tmp_path, monkeypatch):
    "On the command line as in Python; a path is written as a path"
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / 'digits', names=('left', 'right'))
    with pytest.warns(UserWarning, match=r'name: digits is the known task; for the file or folder here write ./digits'): assert load_task('digits').K == 10
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for path in ('./digits', Path('digits'), str(tmp_path / 'digits')): assert load_task(path).labels == ['left', 'right']

# ---- caches that are shared ----------------------------------------------------------------------------------------

@pytest.mark.skipif(not hasattr(os, 'umask') or os.name == 'nt', reason='needs the permissions of Unix')
def test_the_cache_is_readable_as_the_umask_says(tmp_path, cache):
    old = os.umask(0o027)
    try: load_task(pictures(tmp_path / 'f'))
    finally: os.umask(old)
    assert {stat.S_IMODE(p.stat().st_mode) for p in cache.iterdir()} == {0o640} and len(list(cache.iterdir())) == 2

@root_only
def test_a_cache_that_cannot_be_written(tmp_path, cache, python):
    pictures(tmp_path / 'f')
    cache.mkdir(mode=0o700)
    os.chown(cache, SOMEBODY, SOMEBODY)
    code = ORDINARY + 'import sys, vrlit as vr\ntry: vr.load_task(sys.argv[1], cache=sys.argv[2])\nexcept OSError as e: print(type(e).__name__, e)'
    for place in (cache, cache / 'deeper'):
        said = python('-c', code, tmp_path / 'f', place)
        assert 'PermissionError' in said and 'cache: decoded images cannot be kept there' in said and 'VRLIT_CACHE' in said and str(place) in said
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='VRLIT_CACHE'): load_task(tmp_path / 'f', cache=tmp_path / 'file')

@root_only
def test_files_of_a_second_user_do_not_break_the_firsts(tmp_path, cache, python):
    "In a folder that is open to all, as /tmp is: everybody writes there, and nobody replaces what is another's"
    pictures(tmp_path / 'f')
    task = load_task(tmp_path / 'f')
    cache.chmod(0o1777)
    for p in (cache, *cache.iterdir()): os.chown(p, SOMEBODY, SOMEBODY)
    for p in cache.iterdir(): p.chmod(0o600) # closed to the second user
    theirs = {p: p.read_bytes() for p in cache.iterdir()}
    code = ORDINARY + 'import sys, warnings, vrlit as vr; warnings.simplefilter("error"); t = vr.load_task(sys.argv[1], cache=sys.argv[2]); print(len(t.train), int(t.train.x.sum()))'
    want = f'{len(task.train)} {int(task.train.x.sum())}'
    for _ in range(2): assert python('-c', code, tmp_path / 'f', cache).strip() == want
    assert all(p.read_bytes() == data for p, data in theirs.items()) and len(list(cache.iterdir())) == 3
    assert torch.equal(load_task(tmp_path / 'f').train.x, task.train.x)

# ---- arrays and lists as they are ----------------------------------------------------------------------------------

def xrays():
    "Two classes, grey, 28 pixels: {split: (images [N, 28, 28], labels [N])}"
    sizes = dict(train=60, val=12, test=20)
    return {part: (np.stack([(grey(1000 * k + i, 28) // 2 + 60 * (i % 2)).astype(np.uint8) for i in range(n)]), np.arange(n) % 2) for k, (part, n) in enumerate(sizes.items())}

def test_xrays_in_every_form_give_the_same_accuracy(tmp_path):
    "PNGs of 8 and of 16 bits, the arrays of MedMNIST, pairs of .npy, a list of files: one task, and one result"
    arrays, rows = xrays(), ['file;label;split']
    for part, (x, y) in arrays.items():
        for i, (v, k) in enumerate(zip(x, y)):
            for bits in 8, 16:
                path = tmp_path / f'png{bits}' / part / f'{k}' / f'{i:03}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(v if bits == 8 else v.astype(np.uint16) * 257).save(path)
            rows.append(f'png16/{part}/{k}/{i:03}.png;{k};{part.title()}')
    np.savez(tmp_path / 'mnist.npz', **{f'{part}_images': x for part, (x, y) in arrays.items()}, **{f'{part}_labels': y[:, None] for part, (x, y) in arrays.items()})
    (tmp_path / 'pairs').mkdir()
    for part, (x, y) in arrays.items(): np.save(tmp_path / 'pairs' / f'x_{part}.npy', x); np.save(tmp_path / 'pairs' / f'y_{part}.npy', y)
    (tmp_path / 'list.csv').write_text('\n'.join(rows))
    source = vr.load_source(torch.nn.Sequential(torch.nn.AvgPool2d(7), torch.nn.Flatten(), torch.nn.Linear(48, 12)), size=28)
    accuracy = {}
    for name in ('png8', 'png16', 'mnist.npz', 'pairs', 'list.csv'):
        task = load_task(tmp_path / name)
        assert (task.K, task.labels, task.size) == (2, ['0', '1'], 28) and {k: len(s) for k, s in task.splits.items()} == dict(train=60, val=12, test=20), name
        model = vr.Reprogrammed(vr.Watermark(source), source, vr.BLM(12, 2))
        by_label = {k: s.x[s.y.argsort(stable=True)] for k, s in task.splits.items()} # a folder has them class by class
        accuracy[name] = vr.fit(model, vr.make_task('t', *((by_label[k], task.splits[k].y.sort()[0]) for k in ('train', 'test')), val=(by_label['val'], task.val.y.sort()[0])),
                                epochs=2, lr=.1, batch_size=16, progress=False).last
    reference = {k: v for k, v in accuracy['png8'].items() if k != 'seconds'}
    assert all({k: v for k, v in a.items() if k != 'seconds'} == reference for a in accuracy.values()) and reference['test_acc'] > .6

def test_pairs_of_npy(tmp_path):
    x, y = np.stack([grey(i) for i in range(40)]), np.arange(40) % 2
    for a, b in (('x', 'y'), ('images', 'labels'), ('X', 'y')):
        folder = tmp_path / f'{a}-{b}'
        folder.mkdir()
        np.save(folder / f'{a}.npy', x); np.save(folder / f'{b}.npy', y)
        for name in (folder, folder / f'{a}.npy', folder / f'{b}.npy'): assert sum(len(s) for s in load_task(name).splits.values()) == 40
    np.save(tmp_path / 'x-y' / 'x.npy', np.array([{}], dtype=object))
    with pytest.raises(ValueError, match='x.npy: expected an .npy of a plain array'): load_task(tmp_path / 'x-y')
    (tmp_path / 'alone').mkdir()
    np.save(tmp_path / 'alone' / 'x.npy', x)
    with pytest.raises(ValueError, match=r'or train_images and train_labels, got \[.x.\]'): load_task(tmp_path / 'alone')

@pytest.mark.parametrize('text, said', [
    ('', 'expected a first line with the names of the columns'), ('file,label\n', 'expected a line for each image, got none'),
    ('a.png,cat\n', 'expected a first line with the names'), ('file,label\na.png\n', 'expected 2 columns in each line, got fewer in line 2'),
    ('file,label\nnowhere.png,cat\n', 'nowhere.png: this image is not there'), ('file,label,split\nf/a/00.png,cat,fold1\n', 'expected train, val or test as splits')])
def test_lists_that_are_none(tmp_path, text, said):
    pictures(tmp_path / 'f', 4)
    (tmp_path / 'list.csv').write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=said): load_task(tmp_path / 'list.csv')
    (tmp_path / 'bytes.csv').write_bytes(b'\xff\xfe\x00')
    with pytest.raises(ValueError, match='expected a table of files and labels'): load_task(tmp_path / 'bytes.csv')

def test_labels_in_a_list(tmp_path):
    "Numbers are in the order of numbers; other columns by name; other marks"
    pictures(tmp_path / 'f', 96)
    files = vr.image_files(tmp_path / 'f')
    (tmp_path / 'list.tsv').write_text('id\tpicture\tkind\n' + ''.join(f'{i}\t{f}\t{i % 12}\n' for i, f in enumerate(files)))
    assert load_task(tmp_path / 'list.tsv', columns=('picture', 'kind'), val=None).labels == [str(k) for k in range(12)]
