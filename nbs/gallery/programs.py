"""The first adversarial programs: rows of programs.csv, kept as soon as each is finished.

    python nbs/gallery/programs.py MNIST CIFAR PHOTOGRAPHS

makes the rows that are missing, and may be stopped and started again. 65_first_programs.ipynb reads them. MNIST is the
folder with the files of its 10,000 test digits, CIFAR an image folder or zip of CIFAR-10 with train and test, PHOTOGRAPHS
a zip of JPEG files, with which the similar source is made. Nothing is selected: the last of the epochs counts.
"""
import copy, functools, io, sys, time, zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import vrlit as vr
from vrlit.gallery.automata import load_mnist_test
from vrlit.gallery.programs import ring

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'experiments'))
from rows import make, write

H, COLUMNS = 64, 'task source squash inner width seed epochs images numbers train test before seconds'.split()

@functools.cache
def task(name):
    if name == 'squares': return vr.load_task('squares', val=None)
    if name == 'mnist': return load_mnist_test(sys.argv[1], kind='images', val=None)
    return vr.load_task(sys.argv[2], val=None).few_shot(200)

@functools.cache
def photographs(): # [600, 3, H, H], in 0..1
    with zipfile.ZipFile(sys.argv[3]) as z:
        names = sorted(n for n in z.namelist() if n.lower().endswith(('.jpg', '.jpeg')))[:600]
        read = lambda n: np.array(Image.open(io.BytesIO(z.read(n))).convert('RGB').resize((H, H)))
        return torch.from_numpy(np.stack([read(n) for n in names])).permute(0, 3, 1, 2) / 255

def similar(source, epsilon=2 / 255, epochs=6, batch_size=50, lr=3e-5):
    "A copy that gives the source's own answers also where photographs are disturbed against it (random start, one step)"
    torch.manual_seed(0)
    x, net = photographs(), copy.deepcopy(source.model).requires_grad_().eval()
    ask = lambda x: net(source.normalise(x)).log_softmax(1)
    apart = lambda q, p: F.kl_div(q, p, reduction='batchmean', log_target=True)
    with torch.no_grad(): p = ask(x)
    def disturbed(x, p):
        d = (2 * torch.rand_like(x) - 1).mul(epsilon).requires_grad_()
        g, = torch.autograd.grad(apart(ask(x + d), p), d)
        return (x + (d + epsilon * g.sign()).clamp(-epsilon, epsilon)).clamp(0, 1).detach()
    def same(x):
        with torch.no_grad(): return float((ask(x).argmax(1) == p.argmax(1)).float().mean())
    opt, rows = torch.optim.Adam(net.parameters(), lr), []
    for epoch in range(epochs + 1):
        rows.append(dict(epoch=epoch, plain=round(same(x), 4), disturbed=round(same(disturbed(x, p)), 4)))
        for i in torch.randperm(len(x)).split(batch_size) if epoch < epochs else ():
            loss = apart(ask(x[i]), p[i]) + apart(ask(disturbed(x[i], p[i])), p[i])
            opt.zero_grad(); loss.backward(); opt.step()
    write(HERE / 'similar.csv', rows, ['epoch', 'plain', 'disturbed'])
    return vr.Source(net, **source.known(), labels=source.labels, name='similar')

@functools.cache
def source(kind):
    real = vr.load_source('embedded', size=H)
    if kind == 'real': return real
    return similar(real) if kind == 'similar' else vr.random_source(real, real.normalise(photographs()[:64]))

def by_pixels(t): # of 32 x 32, and no source
    from sklearn.linear_model import LogisticRegression
    (x, y), (x_test, y_test) = ((vr.resize(s[:][0], 32).flatten(1) / 255, s[:][1]) for s in (t.train, t.test))
    ask = LogisticRegression(max_iter=300).fit(x.numpy(), y)
    return ask.coef_.size + len(ask.intercept_), ask.score(x.numpy(), y), ask.score(x_test.numpy(), y_test)

def trained(_, name, kind, squash=None, inner=0, width=0, seed=0, epochs=0):
    if kind == 'none':
        start, (numbers, train, test) = time.perf_counter(), by_pixels(task(name))
        return dict(task=name, source=kind, images=len(task(name).train), numbers=numbers, train=round(train, 4), test=round(test, 4),
                    seconds=round(time.perf_counter() - start, 1))
    f_pre, t = source(kind), task(name)
    prompt = vr.Padding(f_pre, inner, squash=squash)
    prompt.mask.copy_(ring(f_pre, inner, width))
    model = vr.Reprogrammed(prompt, f_pre, vr.OneToOne(f_pre.S, t.K))
    result = vr.fit(model, t, epochs=epochs, batch_size=50, lr=.05, schedule='cosine', keep='last', seed=seed, progress=False)
    return dict(task=name, source=kind, squash=squash, inner=inner, width=width, seed=seed, epochs=epochs, images=len(t.train),
                numbers=3 * int(prompt.mask.sum()), train=round(result.last['train_acc'], 4), test=round(result.last['test_acc'], 4),
                before=round(result.before['test_acc'], 4), seconds=round(sum(r['seconds'] for r in result.log), 1))

KINDS = 'real', 'random', 'similar'
WANTED = [('squares', kind, 'tanh', 36, 14, 0, 10) for kind in KINDS]
WANTED += [('mnist', kind, 'tanh', 28, 18, 0, 3) for kind in KINDS]
WANTED += [('cifar10', kind, 'tanh', 32, 16, 0, 8) for kind in KINDS]
WANTED += [('mnist', 'real', 'tanh', 28, width, 0, 3) for width in (1, 2, 4, 8)]
WANTED += [('mnist', 'real', 'sigmoid', 28, 18, 0, 3)]
WANTED += [(name, 'none') for name in ('squares', 'mnist', 'cifar10')]

if __name__ == '__main__': make(HERE / 'programs.csv', COLUMNS, WANTED, trained)
