"""A lizard without its tail, and a blue one: two symmetric matrices on the cells' state, in lizard.csv.

    python nbs/gallery/lizard.py

trains what is missing, ten minutes each on one core; 62_cellular.ipynb reads it. The reprogramming of Randazzo et al.
(Distill 2021), with 600 steps instead of 8,000: half of each batch begins with one cell, half with a lizard of a pool,
which goes back there as it has become.
"""
import csv, sys
from pathlib import Path

import torch

from vrlit.gallery.automata import SymmetricMatrix, grow, load_lizard, one_cell
from vrlit.tasks import progress_bar

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / 'experiments'))
from rows import write

FILE, COLUMNS, STEPS = HERE / 'lizard.csv', 'goal number value'.split(), 600

def target(goal, grown): # [1, 4, H, W]
    i, j = torch.meshgrid(torch.arange(grown.shape[2]), torch.arange(grown.shape[3]), indexing='ij')
    return grown[:, [0, 2, 1, 3]] if goal == 'blue' else grown * (i + j <= 66)

def trained(goal, lr=.002, seed=0):
    torch.manual_seed(seed)
    rule, program = load_lizard(), SymmetricMatrix(16)
    with torch.no_grad(): lizards = grow(rule, one_cell().repeat(8, 1, 1, 1), 120)
    pool, wanted = lizards.clone(), target(goal, lizards[:1, :4].clamp(0, 1))
    opt = torch.optim.Adam(program.parameters(), lr)
    for step in (bar := progress_bar(range(STEPS), desc=goal)):
        opt.param_groups[0]['lr'] = lr if step < .6 * STEPS else .2 * lr
        k = int(torch.randint(8, ()))
        x = grow(rule, torch.cat([one_cell(), pool[[k]]]), int(torch.randint(56, 88, ())), program)
        loss = (x[:, :4] - wanted).square().mean((1, 2, 3))
        opt.zero_grad(); loss.mean().backward()
        program.numbers.grad /= program.numbers.grad.norm() + 1e-8
        opt.step()
        pool[k] = x[1].detach() if loss[1] < .15 else lizards[k] # one that fell apart is replaced
        if step % 4 == 0: pool[int(torch.randint(8, ()))] = x[0].detach()
        if step % 50 == 49: bar.write(f'{goal} {step + 1} {loss.tolist()}')
    return program.numbers.tolist()

if __name__ == '__main__':
    rows = list(csv.DictReader(FILE.open())) if FILE.exists() else []
    for goal in 'no tail', 'blue':
        if any(r['goal'] == goal for r in rows): continue
        rows += [dict(goal=goal, number=i, value=f'{v:.7g}') for i, v in enumerate(trained(goal))]
        write(FILE, rows, COLUMNS)
