"The systems beyond photographs: trained, interrupted, kept and read again; their published weights; rows of scripts"
import csv, gzip
from pathlib import Path

import pytest, torch, vrlit as vr
from matplotlib.figure import Figure
from vrlit.gallery.automata import (Automaton, Cells, Lot, MnistRule, StateMatrix, Strangers, SymmetricMatrix, grow, load_lizard,
                                    load_mnist_automaton, load_mnist_test, one_cell)
from vrlit.gallery.layers import InputLayer
from vrlit.gallery.programs import ring
from vrlit.gallery.sequences import DealtLabels, SequencePrompt, as_tokens, load_splice
from vrlit.gallery.tables import TABLES, TablePrompt, load_table

ROWS = Path(__file__).resolve().parents[1] / 'nbs' / 'gallery'
HOW = dict(epochs=3, batch_size=16, lr=.01, progress=False, device='cpu')

def few(task, n=40, at_test=30):
    return vr.make_task(task.name, task.train[:n], task.test[:at_test], task.labels, None, kind=task.train.kind)

def net(size=32): return vr.load_source('embedded', size=size)

def system(name):
    "A small one of each: model and task"
    if name in ('matrix', 'strangers'):
        source = load_mnist_automaton(steps=4)
        prompt = StateMatrix(source) if name == 'matrix' else Strangers(source, share=.3)
        return vr.Reprogrammed(prompt, source, vr.OneToOne(10, 10)), few(load_mnist_test(val=None))
    source, splice, wine, digits = net(), load_splice(val=None), load_table('wine'), vr.load_task('digits', val=None)
    if name == 'sequence': return vr.Reprogrammed(SequencePrompt(source, 60, seed=2), source, DealtLabels(source.S, 3, source)), few(splice)
    if name == 'table': return vr.Reprogrammed(TablePrompt(source, 13, wine.train.x), source, vr.FullyMap(source.S, 3)), few(wine, 75, 40)
    return vr.Reprogrammed(InputLayer(source, 5), source, vr.ILM(source.S, 10)), digits.few_shot(3)

SYSTEMS = 'matrix', 'strangers', 'sequence', 'table', 'layer'

@pytest.mark.parametrize('name', SYSTEMS)
def test_an_interrupted_training_goes_on_to_the_bit(name, tmp_path):
    (whole, task), (cut, _), (fresh, _) = (system(name) for _ in range(3))
    want = vr.fit(whole, task, **HOW, keep='last', out=tmp_path / 'whole')
    def stop(row, _):
        if row['epoch'] == 2: raise KeyboardInterrupt
    with pytest.warns(UserWarning, match='interrupted after 2 of 3'): vr.fit(cut, task, **HOW, keep='last', out=tmp_path / 'cut', callback=stop)
    got = vr.fit(fresh, task, **HOW, keep='last', out=tmp_path / 'cut', resume=True)
    assert got.losses == want.losses and [r['test_acc'] for r in got.log] == [r['test_acc'] for r in want.log]
    assert all(torch.equal(v, whole.adapter()[k]) for k, v in fresh.adapter().items())

@pytest.mark.parametrize('name', SYSTEMS)
def test_a_run_is_kept_and_read(name, tmp_path):
    model, task = system(name)
    before = {k: v.clone() for k, v in model.source.state_dict().items()}
    folder = vr.save_run(tmp_path / 'run', model, task, vr.fit(model, task, **HOW | dict(epochs=1), keep='last'))
    again = vr.load_run(folder, source=system(name)[0].source).model
    with vr.eval_mode(model), vr.eval_mode(again): assert torch.equal(again(task.test.x[:20]), model(task.test.x[:20]))
    assert all(torch.equal(v, model.source.state_dict()[k]) for k, v in before.items()) and not any(p.requires_grad for p in model.source.parameters())

@pytest.mark.parametrize('name', SYSTEMS)
def test_what_the_source_sees_is_drawn(name, tmp_path):
    model, task = system(name)
    vr.show(model, task, figure=(figure := Figure(figsize=(6, 2)))).savefig(tmp_path / 'show.png')
    assert len(figure.axes) == 1 + min(10, task.K) and (tmp_path / 'show.png').stat().st_size > 1000

@pytest.mark.parametrize('name', ['matrix', 'strangers', 'layer'])
def test_a_control_runs_in_its_own_source(name):
    model, task = system(name)
    done = vr.compare(model, task, **HOW | dict(epochs=1, keep='last'))
    control, _ = vr.control_model(model, task, 'random')
    if name != 'layer': assert control.prompt.automaton is control.source.model is not model.source.model
    assert {*done.controls} == {'random', 'constant'}

def test_the_automaton_reads_what_was_published():
    "95 % of the digits it never saw, by its mean vote after 20 steps; the same digit alone or in a batch"
    source, x, y = load_mnist_automaton(), load_mnist_test().test.x, load_mnist_test().test.y
    with torch.no_grad(): votes = source(x)
    assert (votes.argmax(1) == y).float().mean() > .93
    with torch.no_grad(): torch.testing.assert_close(source(x[7:8]), votes[7:8], atol=1e-4, rtol=1e-4)

def test_cells_at_the_edge_and_none():
    ink = torch.zeros(2, 5, 6)
    ink[0, 0, 0] = ink[0, 4, 5] = 1                                      # two corners of one picture, nothing in the other
    cells, state = Cells(ink), torch.randn(2, 19)
    assert len(cells) == 2 and (cells.beside == 2).sum() == 16 and torch.equal(cells.dense(state)[0, 1:, 4, 5], state[1])
    torch.testing.assert_close(cells.mean(state), torch.stack([state.mean(0), torch.zeros(19)]))
    same = [Lot(cells, 3).noise for _ in range(2)]
    assert torch.equal(*same) and not torch.equal(Lot(cells).noise, Lot(cells).noise)
    assert torch.equal(Automaton(MnistRule(), 3)(ink[1:]), torch.zeros(1, 10))

def test_a_matrix_is_symmetric_and_stays_so():
    A = SymmetricMatrix(5)
    A.numbers.data.normal_()
    assert torch.equal(A.matrix(), A.matrix().T) and A.numbers.numel() == 15 and SymmetricMatrix(5, False).numbers.numel() == 25
    x = torch.randn(7, 5)
    torch.testing.assert_close(A(x), x @ A.matrix())

def test_the_lizard_grows_and_stays():
    torch.manual_seed(0)
    with torch.no_grad(): a = grow(load_lizard(), one_cell(), 100); b = grow(load_lizard(), a, 100)
    opaque = [(v[0, 3] > .5).sum() for v in (one_cell(), a, b)]
    assert opaque[0] == 1 and opaque[1] > 400 and abs(opaque[2] - opaque[1]) < .1 * opaque[1]
    with pytest.raises(ValueError, match='steps: expected a whole number'): grow(load_lizard(), a, -1)

def test_the_file_of_ten_thousand_digits(tmp_path):
    x, y = torch.randint(256, (50, 28, 28), dtype=torch.uint8), torch.arange(50, dtype=torch.uint8) % 10
    for name, start, v in (('images-idx3', 16, x), ('labels-idx1', 8, y)):
        (tmp_path / f't10k-{name}-ubyte.gz').write_bytes(gzip.compress(bytes(start) + v.numpy().tobytes()))
    t = load_mnist_test(tmp_path, val=None)
    assert (len(t.train), len(t.test), t.shape) == (40, 10, (28, 28)) and torch.equal(t.test.x, x[40:] / 255)
    assert load_mnist_test(tmp_path, kind='images', val=None).size == 28
    (tmp_path / 't10k-labels-idx1-ubyte.gz').unlink()
    with pytest.raises(FileNotFoundError, match='root: there is no .*labels'): load_mnist_test(tmp_path)

def test_the_last_token_fills_the_canvas():
    prompt = SequencePrompt(net(), 5, 3)                                 # nine places, five tokens, patches of 10
    z = prompt.canvas(torch.tensor([[0, 1, 2, 0, 1]]))
    patch = lambda i, j: z[0, :, 10 * i:10 * i + 10, 10 * j:10 * j + 10]
    assert torch.equal(patch(0, 0), patch(1, 0)) and torch.equal(patch(0, 1), patch(1, 1)) and not torch.equal(patch(0, 0), patch(0, 1))
    assert all(torch.equal(patch(*at), patch(1, 1)) for at in ((1, 2), (2, 0), (2, 1), (2, 2))) and not z[..., 30:, :].any()

def test_a_base_image_is_disturbed_by_alpha_at_most():
    source, base = net(), torch.rand(3, 32, 32)
    prompt = SequencePrompt(source, 16, 4, base, alpha=.1)
    z = source.denormalise(prompt(torch.randint(4, (3, 16))))
    assert (z - base).abs().max() <= .1 + 1e-5 and z.min() >= -1e-5 and z.max() <= 1 + 1e-5

@pytest.mark.parametrize('name', TABLES)
def test_tables(name):
    a, b = load_table(name, seed=1), load_table(name, seed=1)
    assert torch.equal(a.test.x, b.test.x) and a.real is (name == 'diabetes') and not torch.equal(a.test.x, load_table(name, seed=2).test.x)
    if name == 'tumours':
        rare = load_table(name, .1, seed=1)
        assert .04 < rare.test.y.float().mean() < .08 and rare.labels == ['benign', 'malignant']

def test_a_ring_of_one_pixel():
    for inner, width in ((28, 1), (27, 2), (30, 9), (32, 1)):
        m = ring(net(), inner, width)
        assert m.shape == (1, 32, 32) and int(m.sum()) == min(inner + 2 * width, 32)**2 - inner**2

@pytest.mark.parametrize('make, told', [
    (lambda: StateMatrix(net()), 'source: expected one of an Automaton'), (lambda: Strangers(load_mnist_automaton(), 2), 'share: expected a number from 0 to 1'),
    (lambda: load_mnist_automaton(steps=0), 'steps: expected a whole number'), (lambda: SymmetricMatrix(0), 'n: expected a whole number'),
    (lambda: one_cell(1), 'side: expected a whole number'), (lambda: as_tokens('ACGT'), 'texts: expected a list of sequences'),
    (lambda: as_tokens([3]), 'texts: expected a list of sequences'), (lambda: as_tokens(['AN']), "got 'N' in number 0, place 1"),
    (lambda: load_splice(3), 'train: expected a whole number from 30'), (lambda: SequencePrompt(net(), 2000), 'length: expected a whole number'),
    (lambda: SequencePrompt(net(), 9)(torch.zeros(1, 9)), r'x: expected tokens \[B, 9\], int64'), (lambda: SequencePrompt(net(), 9, alpha=-1), 'alpha: expected'),
    (lambda: DealtLabels(1000, 200), 'expected|need'), (lambda: load_table('fraud'), "name: expected 'tumours', 'wine' or 'diabetes'"),
    (lambda: load_table('tumours', 2), 'rare: expected a number from 0 to 1'), (lambda: TablePrompt(net(), 13, torch.zeros(5, 12)), 'expected rows of 13 numbers'),
    (lambda: InputLayer(net(), 2), 'kernel: expected an odd number'), (lambda: ring(net(), 40, 1), 'inner: expected a whole number from 1 to 32')])
def test_bad_input(make, told):
    with pytest.raises((ValueError, TypeError), match=told): make()

@pytest.mark.parametrize('name, n', [('automata', 8), ('sequences', 14), ('tables', 125), ('programs', 17), ('layers', 93)])
def test_rows_are_complete(name, n):
    rows = list(csv.DictReader((ROWS / f'{name}.csv').open()))
    assert len(rows) == n and all(float(r['seconds']) >= 0 for r in rows)
    assert all(0 <= float(r['test']) <= 1 for r in rows if 'test' in r)
