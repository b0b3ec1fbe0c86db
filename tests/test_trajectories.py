"Whole trainings of the official code, step by step: same mapping before every epoch, same losses, same pattern in the end"
from types import SimpleNamespace

import pytest, torch
from safetensors.torch import load_file
from torch import nn

import vrlit as vr

@pytest.fixture
def base(golden):
    "The golden source, and its images and labels"
    d = load_file(golden('traj_base.safetensors'))
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 20))
    net.load_state_dict({k.removeprefix('source.'): v for k, v in d.items() if k.startswith('source.')})
    return vr.load_source(net, size=32), d

@pytest.mark.parametrize('name', ['padding_rlm', 'padding_flm', 'padding_ilm', 'watermark_ilm', 'padding_blm', 'padding_blmp'])
def test_training(name, base, golden):
    (source, data), d = base, load_file(golden(f'traj_{name}.safetensors'))
    kind, mapping = name.split('_')
    prompt = dict(padding=lambda: vr.Padding(source, inner=16), watermark=lambda: vr.Watermark(source, width=4))[kind]()
    assert torch.equal(prompt.pattern, d['init.program']) and torch.equal(prompt.mask.expand(3, -1, -1), d['init.mask'])
    mapping = dict(rlm=lambda: vr.RLM(20, 5, d['mapping'][0].long()), flm=lambda: vr.FLM(20, 5), ilm=lambda: vr.ILM(20, 5),
                   blm=lambda: vr.BLM(20, 5), blmp=lambda: vr.BLMPlus(20, 5, topk=3))[mapping]()
    # the official watermark is given images that were resized by nearest neighbour
    x = lambda part: data[f'{part}_x'] if kind == 'padding' else nn.functional.interpolate(data[f'{part}_x'], size=32)
    task = SimpleNamespace(labels=list('abcde'), K=5, val=None, **{part: vr.Split(x(part), data[f'{part}_y']) for part in ('train', 'test')})

    frozen, mappings = {k: v.clone() for k, v in source.state_dict().items()}, []
    result = vr.fit(vr.Reprogrammed(prompt, source, mapping), task, epochs=6, batch_size=32, shuffle=False, device='cpu', keep='last', progress=False,
                    callback=lambda row, model: mappings.append(model.mapping.matrix().clone()))
    published = d['mapping'] if d['mapping'].ndim == 3 else nn.functional.one_hot(d['mapping'].long(), 20).mT.float() # [epochs, S, K]
    torch.testing.assert_close(torch.stack(mappings), published, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.tensor(result.losses), d['loss'], rtol=1e-4, atol=0)
    torch.testing.assert_close(prompt.pattern.detach(), d['final.program'], rtol=0, atol=1e-4)
    torch.testing.assert_close(torch.tensor([row['test_acc'] for row in result.log[1:]]), d['test_acc'], rtol=0, atol=1e-6)
    assert all(torch.equal(v, frozen[k]) for k, v in source.state_dict().items())

@pytest.mark.parametrize('name', ['smm_flm', 'smm_ilm'])
def test_training_of_smm(name, base, golden):
    "In double precision: in single precision rounding noise in biases before a batch norm makes any two machines part ways"
    (source, data), d = base, load_file(golden(f'traj_{name}.safetensors'))
    source.double()
    prompt = vr.SMM(source)
    ours = lambda part: {k.removeprefix(f'{part}.').replace('program', 'pattern').replace('priority', 'mask_generator'): v
                         for k, v in d.items() if k.startswith(f'{part}.')}
    prompt.load_state_dict(ours('init'))
    x = lambda part: nn.functional.interpolate(data[f'{part}_x'], size=32)
    task = SimpleNamespace(labels=list('abcde'), K=5, val=None, **{part: vr.Split(x(part), data[f'{part}_y']) for part in ('train', 'test')})
    mapping, mappings = dict(flm=vr.FLM, ilm=vr.ILM)[name[4:]](20, 5), []
    result = vr.fit(vr.Reprogrammed(prompt.double(), source, mapping), task, epochs=6, batch_size=32, shuffle=False, device='cpu', keep='last', progress=False,
                    callback=lambda row, model: mappings.append(model.mapping.sequence[:, 0].clone()))
    assert torch.equal(torch.stack(mappings), d['mapping'].long())
    torch.testing.assert_close(torch.tensor(result.losses, dtype=torch.float64), d['loss'], rtol=1e-9, atol=0)
    torch.testing.assert_close(prompt.pattern.detach(), d['final.program'], rtol=0, atol=1e-9)
    state = prompt.state_dict() # the biases before a batch norm, and what it subtracts, are noise here too
    for k, v in ours('final').items(): torch.testing.assert_close(state[k], v, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.tensor([row['test_acc'] for row in result.log[1:]]), d['test_acc'], rtol=0, atol=1e-6)
