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

@pytest.mark.parametrize('layers, patch, channels, size', [(5, 1, 3, 32), (5, 4, 3, 64), (5, 8, 1, 64), (5, 8, 3, 64), (5, 8, 3, 224), (5, 16, 3, 64),
                                                           (6, 8, 3, 64), (6, 16, 3, 96), (6, 32, 3, 96)])
def test_golden_smm(layers, patch, channels, size, golden):
    d = load_file(golden(f'smm_l{layers}_p{patch}_c{channels}_s{size}.safetensors'))
    prompt = vr.SMM(plain(size, 0, 1), patch, layers, channels) # the official module is given normalised images
    state = {k.removeprefix('state.').replace('program', 'pattern').replace('priority', 'mask_generator'): v for k, v in d.items() if k[:6] == 'state.'}
    prompt.load_state_dict(state)
    y = prompt.train()(d['x'][:len(d['y_train'])])
    torch.testing.assert_close(y, d['y_train'], rtol=0, atol=1e-5)
    # y is of before that pass, the state of after it: another pass tells the batch's statistics, and these what the running ones were
    after = prompt.state_dict()
    before = {k: (v - (after[k] - .9 * v)) / .9 if 'running' in k else v for k, v in state.items()}
    again = vr.SMM(plain(size, 0, 1), patch, layers, channels).eval()
    again.load_state_dict(before)
    torch.testing.assert_close(again(d['x']), d['y'], rtol=0, atol=1e-5)
    loss = (y ** 2).mean()
    loss.backward()
    torch.testing.assert_close(loss, d['loss'], rtol=1e-5, atol=0)
    torch.testing.assert_close(prompt.pattern.grad, d['grad_pattern'], rtol=1e-4, atol=1e-5 * float(d['grad_pattern'].abs().max()))
    grad = prompt.mask_generator.conv1.weight.grad
    torch.testing.assert_close(grad, d['grad_conv1'], rtol=1e-4, atol=1e-5 * float(d['grad_conv1'].abs().max()))

@pytest.mark.parametrize('size, patch', [(100, 8), (65, 32), (35, 16), (33, 2)])
def test_smm_mirrors_what_patches_do_not_fill(size, patch):
    prompt = vr.SMM(plain(size), patch, layers=6).eval()
    m = prompt.masks(torch.rand(2, 3, size, size))
    whole, rest = size // patch * patch, size % patch
    assert m.shape == (2, 3, size, size)
    assert torch.equal(m[..., whole:, :], m[..., whole - 1 - rest:whole - 1, :].flip(-2)) and torch.equal(m[..., whole:], m[..., whole - 1 - rest:whole - 1].flip(-1))
    assert torch.equal(m[..., :whole, :whole], m[..., :whole:patch, :whole:patch].repeat_interleave(patch, -1).repeat_interleave(patch, -2))

@pytest.mark.parametrize('name', ['smm_ilm', 'padding_ilm', 'watermark_ilm'])
def test_an_official_checkpoint_goes_in_and_comes_out(name, golden, tmp_path):
    d = load_file(golden(f'traj_{name}.safetensors'))
    theirs = {k.removeprefix('final.'): v.float() if v.is_floating_point() else v for k, v in d.items() if k.startswith('final.')}
    source = plain(32)
    build = dict(smm=vr.SMM, padding=lambda s: vr.Padding(s, 16), watermark=lambda s: vr.Watermark(s, 4))[name.split('_')[0]]
    torch.save(dict(visual_prompt_dict=theirs, mapping_sequence=d['mapping'][-1].long(), epoch=5, best_acc=.5), tmp_path / 'best.pth') # as the published code does
    model = vr.from_official(vr.Reprogrammed(build(source), source, vr.ILM(20, 5)), tmp_path / 'best.pth')
    assert torch.equal(model.prompt.pattern, theirs['program']) and torch.equal(model.mapping.sequence[:, 0], d['mapping'][-1].long())
    back = vr.to_official(model)
    assert back['visual_prompt_dict'].keys() == theirs.keys() and all(torch.equal(v, theirs[k]) for k, v in back['visual_prompt_dict'].items())
    assert torch.equal(back['mapping_sequence'], d['mapping'][-1].long())

def test_an_official_checkpoint_is_never_unpickled(tmp_path):
    import pathlib
    torch.save(dict(visual_prompt_dict={}, trap=pathlib.PurePosixPath('x')), tmp_path / 'best.pth')
    with pytest.raises(ValueError, match='tensors and plain values alone'): vr.from_official(vr.Padding(plain(32)), tmp_path / 'best.pth')

@pytest.mark.parametrize('scale', [.6, 1., 1.3])
def test_golden_scale(scale, golden):
    "Outputs of kornia 0.9, whose `scale` the published code calls, with its padding and mask written out"
    d = load_file(golden('scale_16to32.safetensors'))
    prompt = vr.Scale(plain(32), 16, scale)
    prompt.pattern.data = d['pattern']
    torch.testing.assert_close(prompt(d['x']), d[f'y_{scale}'], rtol=0, atol=2e-5)

def test_a_random_patch_is_seeded_in_training_and_rests_in_evaluation():
    source, x, y = plain(32), torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8), torch.arange(40) % 4
    def run(seed):
        torch.manual_seed(seed + 5) # plays no role
        model = vr.Reprogrammed(vr.Patch(source, 6, random=True), source, vr.ILM(20, 4))
        return vr.fit(model, vr.make_task('t', (x, y), (x, y), list('abcd'), val=None), epochs=2, batch_size=8, seed=seed, device='cpu', progress=False).losses, model
    (a, model), (b, _), (c, _) = run(0), run(0), run(1)
    assert a == b != c
    assert torch.equal(model.prompt(x), model.prompt(x)) and model.prompt.place == (13, 13)
    moved = [model.prompt.train()(x[:1]) for _ in range(8)]
    assert any(not torch.equal(moved[0], z) for z in moved)
    shown = [(z - (vr.unit(vr.resize(x[:1], 32)) - source.mean) / source.std).abs().sum(1)[0] > 1e-6 for z in moved]
    assert all(m.sum() == 36 for m in shown) # whole, wherever it is

def test_evp_makes_the_published_step():
    "Its update rule, written out: gradient of the added image, averaged over the batch, divided by its norm, masked"
    torch.manual_seed(0)
    source, x, y = plain(32), torch.rand(6, 3, 24, 24), torch.arange(6)
    prompt, theirs = vr.EVP(source, 4), torch.zeros(3, 32, 32)
    opt = torch.optim.SGD(prompt.parameters(), lr=5.)
    for _ in range(3):
        noise = theirs.repeat(6, 1, 1, 1).requires_grad_()
        nn.functional.cross_entropy(source((nn.functional.pad(x, [4] * 4) + noise - source.mean) / source.std), y).backward()
        g = noise.grad.mean(0)
        theirs = theirs - 5. * g / (g.norm() + 1e-10) * prompt.mask
        opt.zero_grad()
        nn.functional.cross_entropy(source(prompt(x)), y).backward()
        opt.step()
        torch.testing.assert_close(prompt.pattern.detach(), theirs, rtol=1e-4, atol=1e-4)

PROMPTS = dict(padding=vr.Padding, odd_padding=lambda s: vr.Padding(s, 31), watermark=vr.Watermark, border=lambda s: vr.Watermark(s, 5),
               smm=vr.SMM, smm_head=lambda s: vr.SMM(s, train_body=False), sample_pattern=vr.SamplePattern, smm_1=lambda s: vr.SMM(s, patch=32, layers=6, channels=1),
               bahng=lambda s: vr.Watermark(s, 'narrow', init=1.), patch=vr.Patch, random_patch=lambda s: vr.Patch(s, 20, random=True),
               low_rank=vr.LowRank, scale=vr.Scale, affine_color=lambda s: vr.AffineColor(s, scale=.8), evp=vr.EVP)

@pytest.mark.parametrize('build', PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize('shape', [(8, 8), (64, 64), (100, 100)], ids=str)
def test_what_every_prompt_promises(build, shape):
    torch.manual_seed(0)
    source = plain(64)
    prompt, x = build(source), torch.randint(0, 256, (4, 3, *shape), dtype=torch.uint8)
    with torch.no_grad():
        for p in prompt.parameters(): p.add_(torch.randn_like(p), alpha=.1)
    before, y = x.clone(), prompt.eval()(x)
    assert y.shape == (4, 3, 64, 64) and y.dtype == torch.float32 and torch.equal(x, before)
    torch.testing.assert_close(prompt(x[1:2]), y[1:2], rtol=1e-5, atol=1e-5 * float(y.detach().abs().max())) # a sample does not depend on the others
    off = (prompt(x / 255) - y).abs() > .02 * y.abs().max() # bytes are rounded when they are resized, and bicubic overshoots are cut twice
    assert off.float().mean() < .01
    pixels = x / 255
    same = pixels.clone()
    prompt(pixels)
    assert torch.equal(pixels, same)
    y.sum().backward()
    assert all((p.grad is not None and p.grad.abs().sum() > 0) == p.requires_grad for p in prompt.parameters()) and not any(p.grad is not None for p in source.parameters())
    again = build(source).eval()
    again.load_state_dict(prompt.state_dict())
    assert torch.equal(again(x), y)
    assert prompt.double()(x).dtype == torch.float64 and prompt.to('meta')(x.to('meta')).shape == y.shape
    for wrong in (x[0], x.long()):
        with pytest.raises(ValueError, match='^x: expected'): again(wrong)
