"Source models: the embedded one's accuracy on real photographs, and checkpoints in the forms that people have them"
import io, zipfile

import numpy as np, pytest, torch
from PIL import Image
from safetensors.torch import save_file

import vrlit as vr

@pytest.mark.parametrize('size, top1', [(96, .21), (128, .37), (160, .49)])
def test_the_embedded_source_knows_imagenet(size, top1, shared):
    "One photograph of each of ImageNet's 1,000 labels, in their order; the accuracies are those of the original weights"
    with zipfile.ZipFile(shared('datasets/in1k_sample1000_256px.zip')) as z:
        names = sorted(n for n in z.namelist() if n.lower().endswith(('.jpg', '.jpeg')))
        assert len(names) == 1000
        images = []
        for n in names:
            with Image.open(io.BytesIO(z.read(n))) as im:
                w, h = im.size; s = min(w, h)
                square = im.convert('RGB').crop(((w - s) // 2, (h - s) // 2, (w + s) // 2, (h + s) // 2))
                images.append(torch.from_numpy(np.array(square.resize((size, size), Image.BILINEAR))).permute(2, 0, 1))
    source = vr.load_source(size=size)
    with torch.inference_mode():
        hits = [(source(source.normalize(vr.unit(x))).argmax(1) == y).float() for x, y in
                zip(torch.stack(images).split(100), torch.arange(1000).split(100))]
    assert torch.cat(hits).mean() == pytest.approx(top1, abs=.03)

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
