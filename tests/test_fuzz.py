"""Odd arguments, odd files: whatever comes, either it works or vrlit itself says what was expected.

An error counts as documented if it is one of the kinds that docstrings name, and a `raise` of vrlit's own says it. `VRLIT_FUZZ=20` tries
twenty times as many."""
import functools, io, json, os, re, shutil, tempfile, traceback, warnings, zipfile
from pathlib import Path

import numpy as np, pytest, torch, vrlit as vr
from hypothesis import HealthCheck, given, settings, strategies as st
from PIL import Image
from types import SimpleNamespace
from vrlit import gallery
from test_doors import data, model, quick, source

MANY = int(os.environ.get('VRLIT_FUZZ', 1))
KINDS = ValueError, TypeError, FileNotFoundError, OSError, ImportError, vr.Diverged # ConnectionError is an OSError
HOME = str(Path(vr.__file__).parent)

def examples(n): return settings(max_examples=n * MANY, deadline=None, database=None, derandomize=MANY == 1,
                                 suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

def survives(door, told):
    "It works, or vrlit says why not"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return door()
    except Exception as e:
        last = traceback.extract_tb(e.__traceback__)[-1]
        if isinstance(e, KINDS) and last.filename.startswith(HOME) and 'raise' in (last.line or ''): return None
        shown = ''.join(traceback.format_exception(e)[-6:])
        raise AssertionError(f'{told}\n{shown}') from e

# ---- arguments -----------------------------------------------------------------------------------------------------

ODD = [None, True, False, -1, 0, 1, 2, 7, 1000, .5, 1.5, -.5, float('nan'), float('inf'), '', 'a', '1', 'digits', b'x', [], [1], ['a'], ['a', 'b', 'c', 'd'], [1., 'a'], {}, dict(a=1), (), (1, 2), (.5,),
       {'a'}, object(), int, len, lambda x: x, Path('nowhere'), np.zeros(3), np.array('a'), np.array([None]), torch.zeros(2, 3), torch.tensor(1), torch.zeros(0), torch.zeros(1, 3, 16, 16),
       torch.full((2, 3, 16, 16), float('nan')), torch.zeros(2, 3, 16, 16, dtype=torch.uint8), np.zeros((2, 16, 16, 3), np.uint8), torch.arange(4), torch.nn.Linear(2, 2), torch.float16, slice(3), 1j]
odd = st.sampled_from(ODD)

F, T = source(), vr.make_task('t', data(24), data(24, seed=1), val=.25)
TEXTS = ['a cat', 'a dog', 'the sun', 'x']

CELLS = vr.load_mnist_automaton(steps=2)
FITTED = model()
KEPT_RUN = vr.save_run(Path(tempfile.mkdtemp()) / 'run', FITTED, T, vr.fit(FITTED, T, **quick))

PLAN = vr.read_grid(dict(grid=dict(task='digits')))
ROWS = [dict(task=t, prompt=p, seed=s, test_acc=.1 * s + i, seconds=1., trained=3) for i, t in enumerate('ab') for p in 'xyz' for s in range(3)]

def doors():
    "{name: (function of named arguments, good arguments)}"
    x, y = data(24)
    found = dict(
        fit=(lambda model_, task_, **kw: vr.fit(model_ if model_ is not None else model(), task_, **kw), dict(model_=None, task_=T, **quick | dict(epochs=1), loss='cross-entropy', metrics=('auc',), optimizer='sgd', weight_decay=0., momentum=0., schedule='multistep',
             milestones=(.5,), gamma=.1, shuffle=True, augment=None, flip=None, map_augmented=False, map_training=False, map_fast=False, map_every=1, map_memory=0., precision='fp32', eval_precision='fp32', layout='auto', compile=None, tf32=None, seed=0, keep='selected', class_weight=None, label_smoothing=0., clip_grad=None, warmup=0, select='accuracy', callback=None)),
        fit_into=(lambda out, **kw: vr.fit(model(), T, out=tempfile.mkdtemp() + '/run' if isinstance(out, (str, Path)) else out, **quick | dict(epochs=1) | kw), dict(out='run', resume=False, overwrite=False, save_every=1., on_nan='stop')),
        Checkpoints=(lambda folder, **kw: vr.Checkpoints(tempfile.mkdtemp() if isinstance(folder, (str, Path)) else folder).write(**kw), dict(folder='there', state=dict(a=x), step=3, last=False)),
        part_text=(vr.part_text, dict(part=vr.Watermark(F))),
        compare=(lambda **kw: vr.compare(model(), T, **kw), dict(controls='random', **quick | dict(epochs=1))),
        evaluate=(vr.evaluate, dict(model=model(), split=T.test, batch_size=8, precision='fp32', loss='focal', metrics=('auc',))),
        folded=(vr.folded, dict(model=F.model, x=torch.randn(2, 3, 16, 16))),
        laid_out=(vr.laid_out, dict(source=F, x=torch.randn(2, 3, 16, 16), layout='auto')),
        share_passes=(vr.share_passes, dict(source=vr.load_source(size=32))),
        fastest_precision=(vr.fastest_precision, dict(model=F.model, x=torch.randn(2, 3, 16, 16), seconds=.01)),
        bench_speed=(lambda **kw: vr.bench_speed(F, **kw), dict(prompt='Padding', mapping='RLM', batch=8, images=8, side=8, K=2, precisions=['fp32'], layout='auto', rounds=1, device='cpu')),
        resized=(lambda **kw: T.test.resized(**kw), dict(size=8, mode='bilinear')),
        remember=(lambda **kw: vr.LabelCounts(12, 4).remember(**kw), dict(before=vr.LabelCounts(12, 4), share=.5)),
        update_mapping=(vr.update_mapping, dict(model=model(), split=T.train, epoch=0, batch_size=8)),
        load_task=(lambda **kw: vr.load_task(**kw), dict(name='digits', root='~/data', size=None, mode='bilinear', crop=False, val=.1, val_as_test=None, shots=2, at_most=(9, 9, 9), seed=0, download=False, columns=None, memory=.5)),
        some=(lambda **kw: T.some(**kw), dict(at_most=(9, 9, 9), seed=0)),
        make_task=(vr.make_task, dict(name='t', train=(x, y), test=(x, y), labels=list('abcd'), val=.25, seed=0, provenance='here', flip=True, kind='images', real=False)),
        tensors=(vr.make_task, dict(name='t', train=(torch.rand(24, 7), torch.arange(24) % 4), labels=list('abcd'), kind='tensors', real=False)),
        Split=(vr.Split, dict(x=x, y=y, kind='images', real=False)),
        Source=(lambda **kw: vr.Source(torch.nn.Linear(6, 4), **kw), dict(shape=(6,), dtype=torch.float32, labels=list('abcd'))),
        Placed=(lambda x: vr.unprompted(SimpleNamespace(size=None, shape=(8,)))(x), dict(x=torch.rand(2, 5))),
        measure=(vr.measure, dict(metrics=['accuracy', 'auc'], z=torch.randn(9, 3), y=torch.arange(9) % 3)),
        mean_loss=(lambda z, y, **kw: vr.mean_loss(**kw)(z, y), dict(loss='focal', smoothing=0., z=torch.randn(9, 3), y=torch.arange(9) % 3)),
        focal_loss=(vr.focal_loss, dict(z=torch.randn(9, 3), y=torch.arange(9) % 3, gamma=2.)),
        few_shot=(lambda **kw: T.few_shot(**kw), dict(k=1, seed=0)),
        batches=(lambda **kw: list(vr.batches(**kw)), dict(split=T.train, batch_size=8, drop_last=False, order=torch.arange(5))),
        counting_squares=(vr.counting_squares, dict(n=3, cell=5, seed=0)),
        load_source=(lambda **kw: vr.load_source(**kw), dict(model=torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4)), weights=True, size=8, mean=(.5, .5, .5), std=(.5, .5, .5), labels=None)),
        random_source=(lambda **kw: vr.random_source(F, torch.zeros(2, 3, 16, 16), **kw), dict(seed=0)),
        resize=(vr.resize, dict(x=x, size=8, mode='bilinear', antialias=True)),
        unit=(vr.unit, dict(x=x)),
        rgb=(vr.rgb, dict(image=Image.new('L', (3, 3)))),
        square=(vr.square, dict(image=Image.new('RGB', (3, 4)), size=4, mode='bilinear', crop=True)),
        Augment=(lambda **kw: vr.Augment(**kw)(x), dict(size=8, plus=4, flip=True, mode='bilinear')),
        ResizedCrop=(lambda **kw: vr.ResizedCrop(**kw)(x), dict(size=8, flip=True, mode='bicubic')),
        augmentation=(lambda **kw: vr.augmentation(**kw)(x), dict(text='+4', size=8, flip=False, mode='bicubic')),
        lr_factor=(vr.lr_factor, dict(schedule='multistep', t=1., epochs=4, milestones=(.5,), gamma=.1, warmup=0, steps=1)),
        predict=(lambda **kw: vr.predict(**kw), dict(model=model(), images=x[:2], top=1, batch_size=8, progress=False)),
        report=(lambda **kw: vr.report(**kw), dict(run=model(), split='test', task=T, batch_size=8)),
        Reprogrammed=(vr.Reprogrammed, dict(prompt=vr.Watermark(F), source=F, mapping=vr.ILM(12, 4), labels=None)),
        a_model=(lambda x: model()(x), dict(x=x)),
        load_adapter=(lambda state: model().load_adapter(state), dict(state=model().adapter())),
        label_texts=(vr.label_texts, dict(labels=['a', 'b'], templates='a {}', hyphens=False)),
        text_prompts=(vr.text_prompts, dict(labels=['a', 'b'], templates=['a {}'])),
        attribute_texts=(lambda kind, **kw: vr.attribute_texts(kind, **kw), dict(kind=dict(a=['a long text of a thing'], b=['a long text of another']), labels=['a', 'b'], m=1, seed=0, shortest=3, replace=True)),
        cluster=(vr.cluster, dict(embeddings=torch.randn(12, 4), V=2, seed=0, n_init='auto')),
        TextSource=(vr.TextSource, dict(clip=vr.load_clip(size=32), texts=TEXTS, labels=None, batch_size=4)),
        load_clip=(vr.load_clip, dict(architecture='miniature', pretrained=None, size=32)),
        class_weights=(vr.class_weights, dict(given='balanced', task=T)),
        is_saved=(vr.is_saved, dict(folder='nowhere', result=None)),
        save_run=(lambda **kw: vr.save_run(tempfile.mkdtemp() + '/run', **kw), dict(model=model(), task=T, result=None, overwrite=False)),
        save_pretrained=(lambda folder, **kw: vr.save_pretrained(folder=tempfile.mkdtemp() + '/m' if isinstance(folder, (str, Path)) else folder, **kw), dict(model=FITTED, folder='m', task=None, result=None, licence=None, overwrite=False, name='a/b')),
        from_pretrained=(vr.from_pretrained, dict(folder=KEPT_RUN, revision=None, source=F, weights=None, device='cpu', other_weights=False, own_parts=False)),
        push_to_hub=(lambda repo_id, **kw: vr.push_to_hub(FITTED, repo_id, **kw), dict(repo_id='nobody', private=False, branch=None)),
        export=(lambda out, **kw: vr.export(out=tempfile.mkdtemp() + '/a' if out is None or isinstance(out, (str, Path)) else out, **kw), dict(model=FITTED, to='torch', out='a', images=x[:4], side=None, fold=True, prompted=False)),
        export_page=(lambda runtime: vr.export(FITTED, 'web', tempfile.mkdtemp() + '/a', images=x[:4], runtime=runtime), dict(runtime='cdn')),
        folded_model=(vr.folded_model, dict(model=FITTED, x=x[:4])),
        read_watched=(vr.read_watched, dict(folder=KEPT_RUN)),
        part_class=(vr.part_class, dict(text='SMM(patch=4)', what='prompt')),
        weights_at_hand=(vr.weights_at_hand, dict(name='embedded', weights=None)),
        task_at_hand=(vr.task_at_hand, dict(name='digits', root='nowhere')),
        read_grid=(lambda told, **kw: vr.read_grid(told | kw if isinstance(told, dict) else told), dict(
            told=dict(grid=dict(task='digits', prompt=['SMM', 'Padding'], seed=[0, 1])), when=[dict(prompt='SMM', set=dict(lr=.1))], exclude=[dict(seed=1)], epochs=1, mapping='ILM', root='nowhere')),
        axes=(lambda **kw: vr.read_grid(dict(grid=kw)), dict(task='digits', prompt='SMM', mapping=['ILM'], seed=0, source='embedded', recipe='none', control='none', baseline='none', epochs=[1, 2])),
        grid=(lambda **kw: vr.grid(dict(grid=dict(task='digits')), dry_run=True, **kw), dict(db='nowhere.db', workers=0, minutes=1., engine='local', keep=False, retry=False, extend=False, shared=False, other_version=False, known=None, lease=30., progress=False)),
        known_results=(lambda **kw: vr.known_results(PLAN, **kw), dict(data=[dict(key=PLAN.runs[0].key[:12], test_acc=.5, vrlit=vr.__version__)], other_version=False)),
        copy_notebooks=(lambda **kw: vr.copy_notebooks(tempfile.mkdtemp(), **kw), dict(overwrite=False)),
        slurm_script=(vr.slurm_script, dict(command=['vrlit'], jobs=2, minutes=9., cpus=1, gpus=0)),
        table=(vr.table, dict(data=ROWS, rows='prompt', cols='task', value='test_acc', epoch='selected', over='seed', where=None, test='wilcoxon', alpha=.05, average=True)),
        mean_ranks=(vr.mean_ranks, dict(data=ROWS, rows='prompt', cols='task', value='test_acc', alpha=.05)),
        paired_p=(vr.paired_p, dict(a=[.1] * 7, b=[.2] * 7, test='wilcoxon')),
        published_table=(vr.published_table, dict(name='dvp')),
        reproduce=(lambda **kw: vr.reproduce(**kw), dict(name='smm-table3', scale='small', root='nowhere', weights='nowhere', download=False, db='nowhere.db', dry_run=True, workers=0)),
        auto=(lambda out, **kw: vr.auto(out=tempfile.mkdtemp() if isinstance(out, (str, Path)) else out, **kw), dict(task=T, source=F, minutes=0., trials=0, space='default', epochs=1, batch_size=8, out='auto', seed=0, device='cpu', progress=False)),
        load_run=(lambda **kw: vr.load_run(**kw), dict(folder='nowhere', source=None, weights=None, device=None)),
        build_prompt=(vr.build_prompt, dict(text='Padding(inner=4)', source=F, seed=0)),
        ladder=(vr.ladder, dict(task=T, sources=F, minutes=0., batch_size=8, seed=0, device='cpu', memory=.5, progress=False)),
        build_mapping=(vr.build_mapping, dict(text='ILM', S=12, K=4, names=None, seed=0, source=F)),
        as_tokens=(gallery.sequences.as_tokens, dict(texts=['ACG', 'TTT'], alphabet='ACGT')),
        load_splice=(gallery.sequences.load_splice, dict(train=40, val=.1, seed=0)),
        load_table=(gallery.tables.load_table, dict(name='wine', rare=None, val=.15, seed=0)),
        load_mnist_test=(gallery.automata.load_mnist_test, dict(root=None, kind='tensors', val=.1, seed=0)),
        ring=(gallery.programs.ring, dict(source=F, inner=8, width=1)),
        SymmetricMatrix=(gallery.automata.SymmetricMatrix, dict(n=3, symmetric=True)),
        one_cell=(gallery.automata.one_cell, dict(side=5)),
        load_mnist_automaton=(gallery.automata.load_mnist_automaton, dict(weights=True, steps=2)),
        load_attrnn=(gallery.series.load_attrnn, dict(weights=False)),
        StateMatrix=(gallery.automata.StateMatrix, dict(source=CELLS, symmetric=True)),
        Strangers=(gallery.automata.Strangers, dict(source=CELLS, share=.1, seed=0)),
        TablePrompt=(lambda **kw: gallery.tables.TablePrompt(**kw)(torch.randn(2, 5)), dict(source=F, features=5, rows=torch.randn(9, 5), strength=1.)),
        SequencePrompt=(lambda **kw: gallery.sequences.SequencePrompt(**kw)(torch.zeros(2, 5).long()), dict(source=F, length=5, vocabulary=4, base=None, alpha=.2, seed=0)),
        DealtLabels=(gallery.sequences.DealtLabels, dict(S=12, K=4, source=F, first=None, per_target=2, seed=0)),
        InputLayer=(lambda **kw: gallery.layers.InputLayer(**kw)(x[:1]), dict(source=F, kernel=3)),
        least_error=(vr.least_error, dict(prompt=vr.Watermark(F), x=x, target=torch.rand(24, 3, 16, 16))))
    for name, (cls, more) in dict(Padding=(vr.Padding, dict(inner=8)), Watermark=(vr.Watermark, dict(width=4, init=0., seed=0)), Patch=(vr.Patch, dict(side=4, random=False, init=1., seed=0)), SMM=(vr.SMM, dict(patch=4, layers=5, channels=3, train_body=True, seed=0)),
                                  LowRank=(vr.LowRank, dict(rank=2, init=.01, seed=0)), Scale=(vr.Scale, dict(inner=8, scale=1., normalised=True)), AffineColor=(vr.AffineColor, dict(scale=1.)), EVP=(vr.EVP, dict(width=3)), Resized=(vr.Resized, dict(mode='bilinear'))).items():
        found[name] = (lambda source, _cls=cls, **kw: _cls(source, **kw)(x[:1]), dict(source=F) | more)
    for name, (cls, more) in dict(OneToOne=(vr.OneToOne, dict(per_target=1)), RLM=(vr.RLM, dict(sequence=None, per_target=1, seed=0)), ILM=(vr.ILM, dict(per_target=1)), OLM=(vr.OLM, dict(per_target=1)), BLM=(vr.BLM, dict(laplace=1.)),
                                  BLMPlus=(vr.BLMPlus, dict(laplace=1., topk=None)), Sinkhorn=(vr.Sinkhorn, dict(epsilon=.1, laplace=1.)), FullyMap=(vr.FullyMap, dict(init='random', seed=0)), AttrVR=(vr.AttrVR, dict(k=1, kinds=1, balance=.5)),
                                  PRM=(vr.PRM, dict(k=1)), SeMap=(vr.SeMap, dict(names=(TEXTS * 3, ['a', 'b', 'c', 'd']), encoder=None, templates=None, per_target=1, assign='ordered')), LabelCounts=(vr.LabelCounts, {}), Moments=(vr.Moments, dict(table=None)), ClassMoments=(vr.ClassMoments, dict(table=None)),
                                  Similarity=(vr.Similarity, dict(source=F, per_target=1, order='source')), Discriminant=(vr.Discriminant, dict(shrinkage='oas', priors='counts', once=False)), QuadraticDiscriminant=(vr.QuadraticDiscriminant, dict(quadratic=.5, shrinkage=.1, priors='counts', once=False))).items():
        found[name] = (lambda S, K, _cls=cls, **kw: _cls(S, K, **kw), dict(S=12, K=4) | more)
    return found

DOORS = doors()

@pytest.mark.parametrize('name', DOORS)
@examples(20)
@given(d=st.data())
def test_arguments(name, d):
    "One or two of the arguments are something else"
    door, good = DOORS[name]
    wrong = d.draw(st.lists(st.sampled_from(sorted(good)), min_size=1, max_size=min(2, len(good)), unique=True))
    given_ = good | {k: d.draw(odd) for k in wrong}
    if any(type(given_.get(k)) is int and given_[k] >= most for k, most in dict(epochs=7, size=1000, cell=1000).items()): return # asked for, and would be done
    survives(lambda: door(**given_), f'{name}({", ".join(f"{k}={given_[k]!r:.60}" for k in wrong)})')

# ---- files ---------------------------------------------------------------------------------------------------------

KEPT = [('PNG', m) for m in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16')] + [('JPEG', m) for m in ('L', 'RGB', 'CMYK')] + [('BMP', 'RGB'), ('GIF', 'P'), ('PPM', 'RGB'), ('PPM', 'I'), ('WEBP', 'RGBA')] + \
       [('TIFF', m) for m in ('1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'LAB', 'I', 'I;16', 'I;16B', 'F')]
NAMES = ['train', 'Train', 'TRAINING', 'val', 'valid', 'test', 'Testing', 'a', 'b', 'c', '.hidden', '__MACOSX', 'ä b', 'images', 'labels', '0', 'x.png']
ENDS = ['.png', '.PNG', '.jpg', '.tif', '.txt', '.npy', '.csv', '.json', '.zip', '']

@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch): monkeypatch.setenv('VRLIT_CACHE', str(tmp_path / 'cache'))

@pytest.fixture
def folder(tmp_path):
    "Function: an empty folder"
    def fresh():
        shutil.rmtree(tmp_path / 'files', ignore_errors=True)
        (tmp_path / 'files').mkdir()
        return tmp_path / 'files'
    return fresh

@st.composite
def broken(draw, data):
    "The same bytes, or some of them changed, cut off, doubled"
    how, n = draw(st.sampled_from(['as it is'] * 5 + ['changed', 'cut', 'doubled', 'other'])), len(data)
    if how == 'changed':
        data = bytearray(data)
        for i in draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8)) if n else (): data[i] = draw(st.integers(0, 255))
        return bytes(data)
    return dict(cut=data[:draw(st.integers(0, n))], doubled=data + data).get(how, data) if how != 'other' else draw(st.binary(max_size=64))

@st.composite
def picture(draw, whole=False):
    "A file of an image, of any kind and mode; whole, or perhaps broken"
    kind, mode = draw(st.sampled_from(KEPT))
    w, h, seed = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(0, 9))
    rng = np.random.default_rng(seed)
    image = Image.frombytes('I;16', (w, h), rng.bytes(2 * w * h)) if mode.startswith('I') else Image.frombytes('RGB', (w, h), rng.bytes(3 * w * h))
    if mode == 'F': image = image.convert('L').convert('F')
    elif mode == 'LAB': image = Image.frombytes('LAB', (w, h), rng.bytes(3 * w * h))
    elif mode == 'I;16B': image = Image.frombytes('I;16B', (w, h), rng.bytes(2 * w * h))
    else: image = image.convert(mode) if mode != 'I;16' else image
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = draw(st.sampled_from([0, 1, 3, 6, 8, 9, 77]))
    image.save(file, kind, **(dict(exif=exif) if kind in ('PNG', 'JPEG', 'WEBP', 'TIFF') else {}))
    return file.getvalue() if whole else draw(broken(file.getvalue()))

@st.composite
def tree(draw):
    "{name in the folder: content}: classes of pictures, perhaps in splits; then other names and other files among them"
    layout, some = draw(st.sampled_from([[], [''], [''], ['train', 'test'], ['Train', 'val', 'Testing'], ['training', 'valid']])), draw(st.lists(picture(whole=True), min_size=4, max_size=4))
    found = {f'{part}/{c}/{i}.png'.lstrip('/'): content for part in layout for c in 'ab' for i, content in enumerate(some)}
    names = st.lists(st.sampled_from(NAMES), min_size=0, max_size=3).map('/'.join)
    for _ in range(draw(st.integers(0, 4))):
        above, end = draw(names), draw(st.sampled_from(ENDS[:1] * 12 + ENDS))
        content = draw(picture(whole=draw(st.booleans())) if end[:4].lower() in ENDS[:4] else st.binary(max_size=40))
        found |= {f'{above}/{n}{end}'.lstrip('/'): content for n in 'pqrs'[:draw(st.integers(1, 4))]}
    return found

def write(folder, files):
    for name, content in files.items():
        path = folder / name
        if any(p.is_file() for p in path.parents) or path.is_dir(): continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

HOW = st.fixed_dictionaries(dict(size=st.sampled_from([None, 1, 4]), val=st.sampled_from([.25, .5, .25, None, .1, .9]), val_as_test=st.sampled_from([None] * 4 + [True, False]), shots=st.sampled_from([None, None, 1, 3]),
                                 crop=st.booleans(), mode=st.sampled_from(['bilinear', 'bicubic'])))

def used(file, how):
    "Every task that comes is whole"
    task = vr.load_task(file, **how)
    for split in task.splits.values(): assert split[0][0].dtype == torch.uint8 and 0 <= int(split.y.min()) and int(split.y.max()) < task.K

@examples(60)
@given(files=tree(), how=HOW)
def test_folders(folder, files, how):
    write(root := folder(), files)
    survives(lambda: used(root, how), f'{how} of {sorted(files)}')

@examples(40)
@given(files=tree(), how=HOW, d=st.data())
def test_zips(folder, files, how, d):
    held = io.BytesIO()
    with zipfile.ZipFile(held, 'w', d.draw(st.sampled_from([0, 8, 12, 14]))) as z:
        for name, content in files.items(): z.writestr(name, content)
    (path := folder() / 'a.zip').write_bytes(d.draw(broken(held.getvalue())))
    survives(lambda: used(path, how), f'{how} of {sorted(files)}')

@st.composite
def array(draw, n, images, odd):
    shape = draw(st.sampled_from([(n, 4, 4), (n, 3, 4, 4), (n, 4, 4, 3)] if images else [(n,), (n, 1)]))
    kind, top = ('u1', 256) if images else ('i8', draw(st.sampled_from([2, 3])))
    if odd:
        shape = draw(st.sampled_from([shape, shape, (), (0,), (n, 2), (n + 1,), (n, 0, 4, 4), (n, 2, 4, 4), (n, 1, 4, 4, 1)]))
        kind = draw(st.sampled_from(['u1', 'i8', 'f4', 'f8', 'f2', 'u2', '?', 'U3', 'S2', 'c8', 'M8[s]', 'u8', 'i1', 'O']))
        top = draw(st.sampled_from([1, 2, 300, 2 ** 31]))
    return (np.arange(int(np.prod(shape))) % top).reshape(shape).astype(kind)

@examples(120)
@given(d=st.data(), how=HOW, one=st.booleans())
def test_arrays(folder, d, how, one):
    "An .npz, or .npy in pairs; one of them may be anything"
    x, y = d.draw(st.sampled_from([('{}_images', '{}_labels'), ('x_{}', 'y_{}')]))
    splits = ['train'] + d.draw(st.lists(st.sampled_from(['val', 'test', 'Training', 'b']), max_size=2, unique=True))
    names = [w.format(k) for k in splits for w in (x, y)]
    odd_one, missing = (d.draw(st.sampled_from([None] * 4 + names)) for _ in 'ab')
    held = {k: d.draw(array(12, 'x' in k or 'image' in k, k == odd_one)) for k in names if k != missing}
    if d.draw(st.integers(0, 3)) == 0: held['labels'] = d.draw(st.sampled_from([np.array(list('ab')), np.array(list('abc')), np.arange(12) % 2, np.zeros(())]))
    root = folder()
    if one:
        file = io.BytesIO()
        np.savez(file, **held)
        (root / 'a.npz').write_bytes(d.draw(broken(file.getvalue())))
    else:
        for k, v in held.items(): np.save(root / f'{k}.npy', v)
        for file in list(root.glob('*.npy'))[:1]: file.write_bytes(d.draw(broken(file.read_bytes())))
    survives(lambda: used(root / 'a.npz' if one else root, how), f'{how} of { {k: (v.dtype, v.shape) for k, v in held.items()} }')

CELLS = st.sampled_from(['p0.png', 'p1.png', 'p2.png', 'nowhere.png', '', ' ', '..', '/', '0', '1', '-1', '1.5', '²', 'a', 'b', 'train', 'test', 'val', '"', "'", '\0', 'ä', 'x,y', '~', '~nobody/x', 'a' * 300])

@examples(80)
@given(how=HOW, d=st.data())
def test_lists(folder, how, d):
    "A table of files and labels"
    mark = d.draw(st.sampled_from([',', ';', '\t']))
    header = d.draw(st.sampled_from([['file', 'label'], ['file', 'label', 'split'], ['image', 'class']] * 3 + [['file'], []]))
    n = d.draw(st.sampled_from([24] * 8 + [0, 1, 12]))
    rows = [[f'p{i % 12}.png', 'ab'[i % 2], ('train', 'train', 'test', 'val')[i // 2 % 4]][:len(header)] for i in range(n)]
    for row in d.draw(st.lists(st.sampled_from(rows), max_size=2)) if n and header else (): row[d.draw(st.integers(0, len(row) - 1))] = d.draw(CELLS)
    some = [d.draw(picture(whole=i > 0)) for i in range(3)]
    write(root := folder(), {f'p{i}.png': some[i % 3] for i in range(12)} | {'a.csv': d.draw(broken('\n'.join(mark.join(row) for row in [header, *rows]).encode()))})
    columns = d.draw(st.sampled_from([None] * 40 + [('file', 'label'), ('image', 'class'), ('label', 'file'), ('file', 'file'), 'ab', ('file',), (1, 2)]))
    survives(lambda: used(root / 'a.csv', how | dict(columns=columns)), f'{how} {columns} of {header} {rows}')

@examples(60)
@given(files=tree(), d=st.data())
def test_new_pictures(folder, files, d):
    "predict, of a folder and of one file"
    root = folder()
    write(root, files | {'one.png': d.draw(picture())})
    for given_ in root, root / 'one.png', [root / 'one.png', root / d.draw(st.sampled_from(NAMES))]: survives(lambda: vr.predict(MODEL, given_, progress=False), f'{given_} of {sorted(files)}')

MODEL = model()

@examples(60)
@given(d=st.data())
def test_weights(folder, d):
    "Weights and checkpoints of any content"
    from safetensors.torch import save
    tensors = {}
    for k, v in vr.Watermark(F).state_dict().items():
        kinds = dict(itself=v, half=v.half(), int=v.int(), short=v.new_zeros(2), nan=torch.full(v.shape, float('nan')), number=torch.tensor(1.))
        tensors[k] = kinds[d.draw(st.sampled_from(['itself'] * 4 + list(kinds)))]
    held = [tensors, dict(state_dict=tensors), dict(visual_prompt_dict=tensors, mapping_sequence=torch.arange(4)), dict(visual_prompt_dict=1, mapping_sequence='a'), dict(visual_prompt_dict=tensors, mapping_sequence=None),
            dict(visual_prompt_dict=dict(program=tensors['pattern']), mapping_sequence=[1, 2]), dict(visual_prompt_dict=dict(program=1, mask='a')), {1: torch.zeros(2)}, dict(model={}), [1], 'a', None, tensors['pattern'], 1.5]
    some = held[d.draw(st.integers(0, len(held) - 1))]
    file = io.BytesIO()
    torch.save(some, file)
    end = d.draw(st.sampled_from(['.pt', '.pt', '.safetensors']))
    (path := folder() / f'a{end}').write_bytes(d.draw(broken(file.getvalue() if end == '.pt' else save(tensors))))
    for door in vr.read_weights, lambda path: vr.from_official(model(), path), lambda path: vr.load_source('resnet18', path): survives(lambda: door(path), f'{some!r:.300}')

VALUES = st.sampled_from([None, True, -1, 0, 3, 1e9, .5, '', 'a', 'Watermark', 'ILM(per_target=3)', 'Padding(inner=7)', '__import__("os")', [], ['a'], ['a', 'b', 'c', 'd'], {}, dict(a=1), [[]], 'é' * 50])

@examples(100)
@given(d=st.data())
def test_runs(folder, d):
    "A run folder that somebody edited"
    run = folder() / 'run'
    shutil.copytree(KEPT_RUN, run)
    name = d.draw(st.sampled_from(['config.json', 'labels.json', 'result.json', 'adapter.safetensors', 'times.csv']))
    content, told = (run / name).read_bytes(), name
    if name.endswith('.json') and d.draw(st.integers(0, 4)):
        held = at = json.loads(content)
        while True:
            key = d.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            told += f' {key}'
            if not (isinstance(at[key], (dict, list)) and at[key] and d.draw(st.booleans())): break
            at = at[key]
        if d.draw(st.booleans()): at[key] = d.draw(VALUES)
        else: del at[key]
        content = json.dumps(held).encode()
    else: content = d.draw(broken(content))
    (run / name).write_bytes(content)
    def used():
        loaded = vr.load_run(run, source=F, device='cpu')
        vr.predict(loaded, T.test.x[:2], progress=False)
        str(loaded), loaded.labels, loaded.comparison
    survives(used, told)

@examples(100)
@given(d=st.data())
def test_checkpoints(folder, d):
    "A checkpoint whose disk forgets: as it was, or refused"
    (file := folder() / '000000001.safetensors').write_bytes(d.draw(broken(whole := vr.packed(dict(a=torch.ones(3), b=[1, 'x', None])))))
    state = survives(lambda: vr.unpacked(file), 'a checkpoint')
    assert state is None or file.read_bytes() == whole or (torch.equal(state['a'], torch.ones(3)) and state['b'] == [1, 'x', None])


# ---- the command line ----------------------------------------------------------------------------------------------

WORDS = ['', ' ', '-1', '0', '1', '2', '.5', '1e9', 'nan', 'inf', 'None', 'True', 'a', 'a=1', 'pattern=1', 'pattern=', 'a,b', '.5,.9', ',', '(', 'Padding(', 'Padding(inner=-1)', 'Padding(inner="a")', 'Padding(a=1)', 'padding', 'Watermark(width=3)',
         'SMM(patch=4)', 'Residual(BLM)', 'BLMPlus(topk=0)', 'ILM(ILM)', 'embedded(size=0)', 'embedded(size=a)', 'clip/nothing', 'clip/ViT-B-32', 'hf/', 'resnet18', './digits', '/', '..', '~', 'nowhere', 'file.png', 'é', '{}', '{', '%s', '-', '--', '\\n', 'x' * 300]
COMMANDS = dict(
    train=(['digits'], ['--source', '--weights', '--texts', '--prompt', '--mapping', '--recipe', '--control', '--size', '--mode', '--val', '--shots', '--columns', '--optimizer', '--lr', '--weight-decay', '--momentum', '--schedule', '--milestones', '--gamma',
        '--class-weight', '--label-smoothing', '--select', '--augment', '--seed', '--device', '--keep', '--nothing']),
    eval=(['RUN'], ['--split', '--task', '--root', '--weights', '--batch-size', '--device', '--report']),
    predict=(['RUN', 'file.png'], ['--top', '--weights', '--batch-size', '--device']),
    list=(['prompts'], ['--nothing']))

@functools.cache
def trained():
    "A run that needs nothing but its folder"
    f, t = vr.load_source('embedded', size=32), vr.load_task('digits', shots=2)
    m = vr.Reprogrammed(vr.Watermark(f), f, vr.ILM(f.S, t.K))
    return str(vr.save_run(Path(tempfile.mkdtemp()) / 'run', m, t, vr.fit(m, t, **quick | dict(epochs=1))))

@pytest.mark.parametrize('command', COMMANDS)
@examples(15)
@given(d=st.data())
def test_commands(folder, command, d):
    "No traceback for what a user can type"
    from typer.testing import CliRunner
    from vrlit.cli import app
    named, options = COMMANDS[command]
    said = [trained() if k == 'RUN' else k for k in named]
    if d.draw(st.booleans()): said[d.draw(st.integers(0, len(said) - 1))] = d.draw(st.sampled_from(WORDS))
    for option in d.draw(st.lists(st.sampled_from(options), max_size=2, unique=True)): said += [option, d.draw(st.sampled_from(WORDS))]
    if command == 'train': said += ['--source', 'embedded(size=32)'] * ('--source' not in said) + ['--shots', '2'] * ('--shots' not in said) + ['--epochs', '1', '--out', 'out', '--overwrite', '-q']
    Image.new('L', (9, 9)).save((here := folder()) / 'file.png')
    before = os.getcwd()
    os.chdir(here)
    try: done = CliRunner().invoke(app, [command, *said])
    finally: os.chdir(before)
    assert done.exit_code in (0, 1, 2) and isinstance(done.exception, (SystemExit, type(None))), (said, ''.join(traceback.format_exception(done.exception)))
    assert 'Traceback' not in done.output and (done.exit_code == 0 or done.output.strip()), (said, done.output)
    assert not re.search(r'^error: \w+(Error|Exception): ', done.output, re.M), (said, done.output) # what nobody foresaw
