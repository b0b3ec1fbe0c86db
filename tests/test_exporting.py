"One program for the whole equation: its answers are the model's, on real images, in ONNX and in torch, and nothing of vrlit is needed"
import json, sys, zipfile

import numpy as np, pytest, torch, vrlit as vr
from PIL import Image
from torch import nn
from conftest import some_pictures
from test_cli import vrlit

onnxruntime = pytest.importorskip('onnxruntime')

@pytest.fixture(scope='module')
def digits(): return vr.load_task('digits', shots=8)

PARTS = dict( # prompt, mapping, whether it folds, and how far single precision is off
    watermark_ilm=(vr.Watermark, vr.ILM, True, 1e-4), padding_discriminant=(lambda f: vr.Padding(f, inner=24), vr.Discriminant, True, 2e-3),
    smm_blmp=(lambda f: vr.SMM(f, patch=4), vr.BLMPlus, True, 1e-4), evp_fully=(vr.EVP, vr.FullyMap, True, 1e-4),
    lowrank_quadratic=(vr.LowRank, lambda S, K: vr.QuadraticDiscriminant(S, K), False, 2e-3))

def trained(kind, task, size=32):
    source = vr.load_source(size=size)
    prompt, mapping, *_ = PARTS[kind]
    model = vr.Reprogrammed(prompt(source), source, mapping(source.S, task.K))
    vr.fit(model, task, epochs=1, batch_size=40, lr=.02, device='cpu', progress=False)
    return model

def onnx_run(file):
    session = onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider'])
    return session, lambda x, *names: session.run(names or ['probabilities'], {'images': x.numpy()})

@pytest.mark.parametrize('kind', PARTS)
def test_the_answers_are_the_models(kind, digits, tmp_path):
    *_, folds, atol = PARTS[kind]
    model, x = trained(kind, digits), digits.test.x
    before = {k: v.clone() for k, v in model.state_dict().items()}
    want = model(x).softmax(1).detach()
    done = {to: vr.export(model, to, tmp_path / f'{kind}.{to}', images=x) for to in ('onnx', 'torch')}
    session, run = onnx_run(done['onnx'].file)
    program = torch.export.load(str((tmp_path / f'{kind}.torch').rename(tmp_path / 'a.pt2'))).module()
    for n in (1, 3, 70):
        np.testing.assert_allclose(run(x[:n])[0], want[:n], atol=atol)
        torch.testing.assert_close(program(x[:n]), want[:n], atol=atol, rtol=0)
    p, label = run(x, 'probabilities', 'label')
    assert list(label) == [model.labels[i] for i in p.argmax(1)] and np.allclose(p.sum(1), 1, atol=1e-5)
    assert session.get_inputs()[0].type == 'tensor(uint8)' and isinstance(session.get_inputs()[0].shape[0], str)
    assert all(d.folded == folds and d.difference <= atol and d.images == len(x) and not d.noise for d in done.values())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

@pytest.mark.parametrize('name', vr.list_prompts())
def test_every_prompt_for_a_batch_of_any_length(name, digits, tmp_path):
    "Also what it shows: of several prompts all, side by side"
    if name == 'Decoupled': source = vr.DecoupledSource(vr.load_clip(size=32), vr.text_prompts(digits.labels), 3)
    else: source = vr.load_source(nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.Flatten(), nn.Linear(6 * 8 * 8, 20)), size=32)
    model, x = vr.Reprogrammed(vr.build_prompt({'Decoupled': 'Decoupled(Padding(inner=24))'}.get(name, name), source), source, vr.RLM(source.S, 10), digits.labels), digits.test.x[:9]
    with torch.no_grad():
        for p in model.prompt.parameters(): p += .01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    done = [vr.export(model, to, tmp_path / to, images=x, prompted=True) for to in ('onnx', 'torch')]
    program = torch.export.load(str(done[1].file.rename(tmp_path / 'a.pt2'))).module()
    for n in (1, 9):
        for p, shown in (map(torch.from_numpy, onnx_run(done[0].file)[1](x[:n], 'probabilities', 'prompted')), program(x[:n])):
            torch.testing.assert_close(p, model.eval()(x[:n]).softmax(1), atol=1e-4, rtol=0)
            torch.testing.assert_close(shown / 255, vr.prompted(model, x[:n]), atol=.51 / 255, rtol=0)

def test_photographs_and_real_weights(shared, tmp_path):
    source = vr.load_source('mobilenetv2_100', shared('weights/mobilenetv2_100_tfqat_in1k.timm.fp16.safetensors'))
    with zipfile.ZipFile(shared('datasets/flowers5_128px.zip')) as z:
        x = torch.stack([torch.from_numpy(np.array(Image.open(z.open(n)).convert('RGB'))).permute(2, 0, 1) for n in z.namelist() if n.endswith('.jpg')][::600])
    model = vr.Reprogrammed(vr.SMM(source), source, vr.RLM(source.S, 5), list('abcde')).eval()
    with torch.no_grad(): model.prompt.pattern += .1 * torch.randn(model.prompt.pattern.shape, generator=torch.Generator().manual_seed(0))
    for to in 'onnx', 'torch':
        done = vr.export(model, to, tmp_path / to, images=x)
        assert done.folded and done.difference < 1e-4 and done.images == len(x) > 6

def test_no_image_is_in_the_file(digits, tmp_path):
    "torch.export.save writes its example, and of a part of a tensor all of it"
    model, x = trained('watermark_ilm', digits), torch.cat([digits.test.x] * 20)
    file = vr.export(model, 'torch', tmp_path / 'a.pt2', images=x[:30]).file
    (example,), _ = torch.export.load(str(file)).example_inputs
    with zipfile.ZipFile(file) as z: kept, = (i.file_size for i in z.infolist() if 'sample_inputs' in i.filename)
    assert not example.any() and kept < 10_000 < x.numel()

def test_folded_is_smaller_and_unfolded_the_same(digits, tmp_path):
    model, x = trained('watermark_ilm', digits), digits.test.x[:30]
    a, b = (vr.export(model, 'onnx', tmp_path / f'{fold}.onnx', fold=fold, images=x) for fold in (True, False))
    assert a.file.stat().st_size < .6 * b.file.stat().st_size and a.folded and not b.folded
    np.testing.assert_allclose(onnx_run(a.file)[1](x)[0], onnx_run(b.file)[1](x)[0], atol=1e-4)

@pytest.mark.parametrize('mapping', [vr.ILM, lambda S, K: vr.BLM(S, K), vr.Discriminant])
def test_a_clip_is_folded(mapping, digits, tmp_path):
    "The texts are in one layer of the file, which no longer knows them"
    source = vr.TextSource(vr.load_clip(size=32), vr.text_prompts(digits.labels))
    model = vr.Reprogrammed(vr.Padding(source, inner=28), source, mapping(source.S, digits.K))
    vr.fit(model, digits, epochs=0, device='cpu', progress=False)
    done = vr.export(model, 'onnx', tmp_path / 'clip.onnx', images=digits.test.x[:40])
    assert done.folded and done.difference <= 2e-3
    import onnx
    assert not [list(t.dims) for t in onnx.load(done.file).graph.initializer if source.S in t.dims]

def test_what_is_told_and_shown(digits, tmp_path):
    model, x = trained('smm_blmp', digits), digits.test.x[:4]
    session, run = onnx_run(vr.export(model, 'onnx', tmp_path / 'a.onnx', prompted=True).file)
    told = {k: json.loads(v) if v[0] in '[{' else v for k, v in session.get_modelmeta().custom_metadata_map.items()}
    assert told['labels'] == digits.labels and told['reading'] == dict(size=8, mode='bilinear', crop=False)
    assert told['source_labels'] == vr.mapped_names(model.mapping, model.source.labels, 3)
    shown, = run(x, 'prompted')
    np.testing.assert_allclose(shown / 255, vr.prompted(model, x).detach(), atol=.5 / 255 + 1e-4)
    extra = dict(labels='', reading='')
    torch.export.load(str(vr.export(model, 'torch', tmp_path / 'a.pt2').file), extra_files=extra)
    assert json.loads(extra['labels']) == digits.labels and json.loads(extra['reading'])['size'] == 8

ALONE = '''
import sys, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
p, label = session.run(['probabilities', 'label'], dict(images=np.load(sys.argv[2])))
assert 'torch' not in sys.modules and 'vrlit' not in sys.modules
print(list(label))
'''

def test_the_command_line(tmp_path, python):
    some_pictures(tmp_path / 'pile')
    vrlit('train', 'pile', '--source', 'embedded(size=32)', '--epochs', 2, '--batch-size', 16, '--lr', .1, '--no-progress', '--out', 'run', cwd=tmp_path)
    for to, name in dict(onnx='model.onnx', torch='model.pt2').items():
        out, _ = vrlit('export', 'run', '--to', to, cwd=tmp_path)
        assert out.startswith(f'run/{name}: ') and 'folded; largest difference' in out and out.strip().endswith('on 64 images of noise') and (tmp_path / 'run' / name).exists()
    run = vr.load_run(tmp_path / 'run')
    x = run.load_task().test.x
    np.save(tmp_path / 'x.npy', x.numpy())
    want = [run.labels[i] for i in run.model(x).argmax(1)]
    assert str(want) in python('-c', ALONE, tmp_path / 'run' / 'model.onnx', tmp_path / 'x.npy')
    vrlit('export', 'run', '--out', 'big.onnx', '--side', 24, '--no-fold', cwd=tmp_path)
    assert onnx_run(tmp_path / 'big.onnx')[0].get_inputs()[0].shape[1:] == [3, 24, 24]
    assert 'expected one that `save_run` or `vrlit train` wrote' in vrlit('export', 'pile', cwd=tmp_path, code=2)[1]

def test_what_cannot_be_exported(digits, tmp_path, monkeypatch):
    source = vr.load_source(size=32)
    untrained = vr.Reprogrammed(vr.Watermark(source), source, vr.RLM(source.S, 10))
    for why, call in ((ValueError, lambda: vr.export(untrained)), (TypeError, lambda: vr.export(source)), (ValueError, lambda: vr.export(untrained, 'tflite', side=8)),
                      (ValueError, lambda: vr.export(untrained, side=8, images=torch.rand(3, 3, 8, 8)))):
        with pytest.raises(why): call()
    model = trained('watermark_ilm', digits)
    monkeypatch.setitem(sys.modules, 'onnx', None)
    monkeypatch.setattr('vrlit.exporting.find_spec', lambda name: None if name.startswith('onnx') else True)
    with pytest.raises(ImportError, match=r"pip install 'vrlit\[onnx\]'"): vr.export(model, 'onnx', tmp_path / 'a.onnx')
    assert not list(tmp_path.iterdir()) # nothing is half written
