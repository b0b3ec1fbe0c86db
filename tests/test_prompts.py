"Padding and watermark against the official modules, and what every prompt promises"
import pytest, torch
from safetensors.torch import load_file
from torch import nn

import vrlit as vr
from vrlit import sources

def plain(size, mean=sources.IMAGENET_MEAN, std=sources.IMAGENET_STD):
    "A source of that size, whose classifier plays no role here"
    return vr.load_source(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 20)), size=size, mean=mean, std=std)

@pytest.mark.parametrize('inner, outer', [(31, 64), (32, 224), (128, 224)])
def test_golden_padding(inner, outer, golden):
    d = load_file(golden(f'pad_{inner}to{outer}.safetensors'))
    prompt = vr.Padding(plain(outer), inner=inner)
    prompt.load_state_dict(dict(pattern=d['pattern']))
    torch.testing.assert_close(prompt(d['x']), d['y'], rtol=0, atol=1e-6)

@pytest.mark.parametrize('name, size, width', [('64_pad8', 64, 8), ('64_full', 64, None), ('64_full', 64, 32), ('224_pad28', 224, 28)])
def test_golden_watermark(name, size, width, golden):
    d = load_file(golden(f'watermark_{name}.safetensors'))
    prompt, before = vr.Watermark(plain(size, 0, 1), width), d['x'].clone() # the official module is given normalised images
    prompt.load_state_dict(dict(pattern=d['pattern']))
    assert torch.equal(prompt.mask.expand(3, -1, -1), d['mask'])
    torch.testing.assert_close(prompt(d['x']), d['y'], rtol=0, atol=1e-6)
    assert torch.equal(d['x'], before)

PROMPTS = dict(padding=vr.Padding, odd_padding=lambda s: vr.Padding(s, 31), watermark=vr.Watermark, border=lambda s: vr.Watermark(s, 5))

@pytest.mark.parametrize('build', PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize('shape', [(8, 8), (64, 64), (100, 100)], ids=str)
def test_what_every_prompt_promises(build, shape):
    torch.manual_seed(0)
    source = plain(64)
    prompt, x = build(source), torch.randint(0, 256, (4, 3, *shape), dtype=torch.uint8)
    with torch.no_grad():
        for p in prompt.parameters(): p.normal_()
    before, y = x.clone(), prompt.eval()(x)
    assert y.shape == (4, 3, 64, 64) and y.dtype == torch.float32 and torch.equal(x, before)
    assert torch.equal(prompt(x[1:2]), y[1:2]) # a sample does not depend on the others
    torch.testing.assert_close(prompt(x / 255), y, rtol=0, atol=.02) # bytes are rounded when they are resized
    y.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in prompt.parameters()) and not any(p.grad is not None for p in source.parameters())
    again = build(source).eval()
    again.load_state_dict(prompt.state_dict())
    assert torch.equal(again(x), y)
    assert prompt.double()(x).dtype == torch.float64 and prompt.to('meta')(x.to('meta')).shape == y.shape
    for wrong in (x[0], x.long()):
        with pytest.raises(ValueError, match='^x: expected'): again(wrong)
