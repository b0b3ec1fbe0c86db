"Source models: the embedded one's accuracy on real photographs, and checkpoints in the forms that people have them"
import io, zipfile

import numpy as np, pytest, torch
from PIL import Image
from safetensors.torch import save_file

import vrlit as vr

def test_a_source_moves_and_never_learns():
    source = vr.load_source()
    before = {k: v.clone() for k, v in source.state_dict().items()}
    x = torch.rand(2, 3, 96, 96, requires_grad=True)
    source.train().requires_grad_()(x).sum().backward()
    assert x.grad.abs().sum() > 0 and not any(p.requires_grad or p.grad is not None for p in source.parameters())
    assert all(torch.equal(v, before[k]) for k, v in source.state_dict().items())
    half = source.to(torch.bfloat16)
    assert half(half.normalize(torch.rand(2, 3, 96, 96, dtype=torch.bfloat16))).dtype == torch.bfloat16

@pytest.mark.parametrize('suffix', ['safetensors', 'pth'])
def test_a_local_checkpoint_of_the_embedded_architecture(tmp_path, suffix):
    file, random = tmp_path / f'mine.{suffix}', vr.load_source('embedded', False)
    state = {k: v.contiguous() for k, v in random.model.state_dict().items()}
    if suffix == 'pth': torch.save({'state_dict': state}, file)
    else: save_file(state, file)
    loaded, x = vr.load_source('embedded', file), torch.randn(2, 3, 96, 96)
    assert torch.equal(loaded(x), random(x)) and file.name in loaded.name

def test_a_checkpoint_that_does_not_fit(tmp_path):
    file = tmp_path / 'other.safetensors'
    save_file(torch.nn.Linear(3, 2).state_dict(), file)
    with pytest.raises(ValueError, match='other.safetensors does not fit'): vr.load_source('embedded', file)
    with pytest.raises(FileNotFoundError, match='there is no file'): vr.load_source('embedded', tmp_path / 'none.safetensors')
    file.write_bytes(b'not a checkpoint')
    with pytest.raises(ValueError, match='nothing else is ever unpickled'): vr.load_source('embedded', file)

def test_a_module_of_ones_own():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 7))
    source = vr.load_source(net, size=4, mean=0, std=1, labels=list('abcdefg'))
    assert (source.S, source.size, source.labels[2]) == (7, 4, 'c') and not any(p.requires_grad for p in net.parameters())
    with pytest.raises(ValueError, match='is size=224 right'): vr.load_source(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 7)))

# ---- real checkpoints, and names ------------------------------------------------------------------------------------

def photographs(shared, size, short, step):
    "uint8 [N, 3, size, size]: photographs of every `step`-th ImageNet label, the shorter side resized to `short` by PIL, the middle cut out"
    images = []
    with zipfile.ZipFile(shared('datasets/in1k_sample1000_256px.zip')) as z:
        for n in sorted(n for n in z.namelist() if n.lower().endswith(('.jpg', '.jpeg')))[::step]:
            with Image.open(io.BytesIO(z.read(n))) as im:
                w, h = (max(short, round(s * short / min(im.size))) for s in im.size)
                a, b = (w - size) // 2, (h - size) // 2
                middle = im.convert('RGB').resize((w, h), Image.BILINEAR).crop((a, b, a + size, b + size))
                images.append(torch.from_numpy(np.array(middle)).permute(2, 0, 1))
    return torch.stack(images)

@pytest.mark.parametrize('name, file, kwargs, short, step, known', [
    ('embedded', None, dict(size=96), 96, 1, .21), ('embedded', None, dict(size=128), 128, 1, .37), ('embedded', None, dict(size=160), 160, 1, .49),
    ('embedded', 'mobilenetv1_025_in1k.timm.fp32', dict(size=224), 224, 2, .58),
    ('mobilenetv2_100', 'mobilenetv2_100_tfqat_in1k.timm.fp16', dict(pad_type='same', mean=.5, std=.5), 256, 2, .89),
    ('squeezenet1_0', 'squeezenet1_0_deepcompression_in1k.torchvision.fp16', {}, 256, 2, .61)])
def test_real_weights_know_imagenet(name, file, kwargs, short, step, known, shared):
    "The accuracies are those of the original weights on these photographs"
    source = vr.load_source(name, shared(f'weights/{file}.safetensors') if file else True, **kwargs).to(memory_format=torch.channels_last)
    assert source.S == 1000 and source.labels == vr.imagenet_labels()
    x, y = photographs(shared, source.size, short, step), torch.arange(0, 1000, step)
    with torch.inference_mode():
        hits = sum((source(source.normalize(vr.unit(b))).argmax(1) == t).sum().item() for b, t in zip(x.split(50), y.split(50)))
    assert hits / len(x) == pytest.approx(known, abs=.03)

@pytest.mark.parametrize('name, weights, size, mean, S', [
    ('resnet18', 'IMAGENET1K_V1', 224, .485, 1000), ('resnet50', 'IMAGENET1K_V2', 224, .485, 1000),
    ('vit_base_patch32_384', True, 384, .5, 1000), ('resnext101_32x8d', 'fb_wsl_ig1b_ft_in1k', 224, .485, 1000),
    ('resnext101_32x8d_wsl', True, 224, .485, 1000), ('timm/convnext_tiny.in12k', True, 224, .485, 11821),
    ('timm/mixer_b16_224.miil_in21k', True, 224, 0, 11221)])
def test_names_of_the_papers(name, weights, size, mean, S, monkeypatch):
    "Each name leads to its library, tag and configuration; only the download is left out"
    import timm, torchvision
    create = timm.create_model
    monkeypatch.setattr(timm, 'create_model', lambda name, pretrained, **kw: create(name, **kw))
    monkeypatch.setattr(torchvision.models._api.WeightsEnum, 'get_state_dict', lambda self, **kw: {})
    monkeypatch.setattr('vrlit.sources.load_weights', lambda model, state, file: model)
    source = vr.load_source(name, weights)
    assert (source.size, source.S) == (size, S) and source.mean[0].item() == pytest.approx(mean)
    assert len(source.labels) == S and not source.labels[0].startswith('source label')
    assert name in source.name and (weights is True or weights in source.name), source.name
