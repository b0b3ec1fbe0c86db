"""How much faster label counts and the greedy assignment are than literal implementations of the published steps, and what the moments of the discriminant add to one pass:
ratios of one run, on this machine.

    python nbs/experiments/mapping_speed.py
"""
import platform, statistics, time

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import vrlit as vr

def literal_counts(batches, K):
    "The logits of all images are kept; their answers are one table of zeros and ones, [N, S], of which the rows of each target label are added up"
    logits, y = (torch.cat(parts) for parts in zip(*batches))
    said = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1])
    return torch.stack([said[y == t].sum(0) for t in range(K)], 1)

def our_counts(batches, K):
    stats = vr.LabelCounts(batches[0][0].shape[1], K)
    for logits, y in batches: stats.update(logits, y)
    return stats.counts

def literal_greedy(n):
    "K times the largest entry of the whole table"
    n, K = n.clone(), n.shape[1]
    sequence = [0] * K
    for _ in range(K):
        s, t = divmod(n.flatten().argmax().item(), K)
        sequence[t] = s
        n[s] = -1; n[:, t] = -1
    return torch.tensor(sequence)[:, None]

def compared(name, a, b, *args, repeats=7):
    "Medians of both, run in turns, and their ratio"
    assert torch.equal(a(*args), b(*args)), name
    took = [[], []]
    for _ in range(repeats):
        for f, ts in zip((a, b), took):
            start = time.perf_counter()
            f(*args)
            ts.append(time.perf_counter() - start)
    slow, fast = map(statistics.median, took)
    print(f'{name:62} literal {1e3 * slow:8.1f} ms, vrlit {1e3 * fast:7.1f} ms, ratio {slow / fast:6.1f}; identical results', flush=True)

def answers(N, S, K, batch=256):
    "Batches of logits and target labels"
    g = torch.Generator().manual_seed(0)
    return list(zip(torch.randn(N, S, generator=g).split(batch), torch.randint(0, K, (N,), generator=g).split(batch)))

def table(S, K, N):
    "Label counts in which a target label has its favourites, as real ones have"
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, K, (N,), generator=g)
    said = (y * (S // K) + (torch.randn(N, generator=g).abs() * S / 20).long()) % S
    return torch.bincount(said * K + y, minlength=S * K).view(S, K)

def added(size, repeats=7):
    "What label counts and moments add to the bare forward of the embedded source, in turns, medians"
    source, x, y = vr.load_source(size=size), torch.randn(256, 3, size, size), torch.arange(256) % 10
    takes = {'forward': lambda z: None, 'counts': lambda z: vr.LabelCounts(source.S, 10).update(z, y), 'moments': lambda z: moments.update(z, y)}
    moments, took = vr.Moments(source.S, 10), {name: [] for name in takes}
    with torch.no_grad():
        for _ in range(repeats):
            for name, take in takes.items():
                start = time.perf_counter()
                take(source(x))
                took[name].append(time.perf_counter() - start)
    bare, counts, all_ = (statistics.median(ts) for ts in took.values())
    print(f'one batch of 256 at {size:3} pixels, S = 1,000: forward {1e3 * bare:6.1f} ms; label counts {counts / bare - 1:+.1%}, moments {all_ / bare - 1:+.1%}', flush=True)
    start = time.perf_counter()
    vr.Discriminant(source.S, 10).update(moments)
    print(f'the discriminant from them: {time.perf_counter() - start:.2f} s', flush=True)

class Largest(TorchDispatchMode):
    "Bytes of the largest tensor that is made"
    bytes = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **kwargs or {})
        made = [t for t in (out if isinstance(out, (list, tuple)) else [out]) if isinstance(t, torch.Tensor)]
        self.bytes = max(self.bytes, *(t.numel() * t.element_size() for t in made), 0)
        return out

if __name__ == '__main__':
    print(f'torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} thread{"s" * (torch.get_num_threads() > 1)}')
    for S, K in ((1000, 10), (1000, 100)):
        compared(f'label counts, N = 50,000, S = {S:,}, K = {K}', literal_counts, our_counts, answers(50_000, S, K), K, repeats=3)
    for S, K in ((1000, 10), (1000, 100), (8181, 101)):
        compared(f'greedy assignment, S = {S:,}, K = {K}', literal_greedy, vr.greedy_assignment, table(S, K, 50_000))
    compared('greedy assignment, S = 8,181, K = 101, 1,616 images', literal_greedy, vr.greedy_assignment, table(8181, 101, 1616))
    batches = answers(50_000, 1000, 100)
    for name, f in dict(literal=literal_counts, vrlit=our_counts).items():
        with Largest() as largest: f(batches, 100)
        print(f'largest tensor made for label counts, N = 50,000, S = 1,000, K = 100: {name:8} {largest.bytes / 1e6:7.1f} MB')
    for size in (64, 96, 128, 224): added(size)
