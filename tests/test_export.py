"Tracing: the whole model becomes one program for a batch of any length, and leaves the library as it was"
import pytest, torch
from torch import nn

import vrlit as vr

def source(size=24):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 12))
    return vr.load_source(net, size=size)

def images(n, side=20): return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(n), dtype=torch.uint8)

@pytest.mark.parametrize('prompt', [vr.Resized, lambda f: vr.Padding(f, 11), vr.Watermark, lambda f: vr.SMM(f, 4)], ids='Resized Padding Watermark SMM'.split())
@pytest.mark.parametrize('kind', ['bytes', 'floats'])
def test_export_with_a_dynamic_batch(prompt, kind):
    f = source()
    model = vr.Reprogrammed(prompt(f), f, vr.ILM(12, 4)).eval()
    of = (lambda n: images(n)) if kind == 'bytes' else (lambda n: images(n) / 255)
    want = model(of(7))
    program = torch.export.export(model, (of(3),), dynamic_shapes=dict(x={0: torch.export.Dim('batch')})).module()
    for n in (1, 7, 30): torch.testing.assert_close(program(of(n)), model(of(n)))
    torch.testing.assert_close(model(of(7)), want)

@pytest.mark.parametrize('trace', [lambda m, x: torch.export.export(m, (x,)), lambda m, x: torch.jit.trace(m, x), lambda m, x: torch.fx.experimental.proxy_tensor.make_fx(m)(x)],
                         ids='export jit make_fx'.split())
def test_tracing_first_leaves_later_resizes_alone(trace):
    import torch.fx.experimental.proxy_tensor
    side = {'export': 21}.get(trace, 22) + id(trace) % 5 # a size that nobody has resized from
    x = images(2, side)
    trace(vr.Resized(source(13)), x)
    want = vr.resize(x.float(), 13).round()
    assert (vr.resize(x, 13).float() - want).abs().max() <= 1 and type(vr.resize(x, 13)) is torch.Tensor
